"""The demo's processes: an edge and its devices are started, given a common start, listened to, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from offramp.errors import OfframpError
from offramp.instance import Instance
from offramp.link_estimate import JOINED_S
from offramp.linked_state import Replay
from offramp.runtime.device_main import FROM_SUPERVISOR
from offramp.runtime.outcomes import DEVICE_LOST, End, Instants, TaskRecord
from offramp.runtime.supervision import Child, ChildError
from offramp.scenario import Scenario

LEAD_S = 0.2
"""From the last order to start until the stream's instant 0."""
POLICY_S = 30.0
"""How long the stream waits for the edge's policy; after that the interim one decides."""
OVERTIME_S = 15.0
"""How long after its last deadline a run is given up."""

Progress = Callable[[str, int, TaskRecord | None], None]
"""Told what is being done, how many tasks have ended, and the one that just has."""


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """What `offramp demo` is told: what tasks are drawn from, and what the policy is told of that.

    `links`, from the file `link_trace`, replace those that the scenario describes: see `over_recording`.
    """

    scenario: Scenario
    told: Scenario
    bundle: Path | None
    policy: str
    policy_file: Path | None
    adapt: bool
    seed: int
    codecs: str = ""
    confidence: float | None = None
    link_trace: Path | None = None
    links: Replay | None = None


class Supervisor:
    """Starts the processes, gives the common start, collects what they report, and ends them.

    Attributes:
        notice: why something else decides in the policy's place, None if nothing does.
        calibrated: each device's slowdown on the profile, as it measured it before the stream.
    """

    def __init__(
        self,
        settings: DemoSettings,
        instance: Instance,
        shares: Sequence[Path],
        scenario_file: Path,
        progress: Progress,
    ) -> None:
        self._settings = settings
        self._instance = instance
        self._shares = shares
        self._scenario_file = scenario_file
        self._progress = progress
        self.notice: str | None = None
        self.calibrated: list[float] = []
        self._records: dict[int, TaskRecord] = {}
        self._starting: list[asyncio.Future[Child]] = []

    async def run(self) -> tuple[TaskRecord, ...]:
        """What became of each task. SIGTERM cancels it; whatever happens, no process is left."""
        loop = asyncio.get_running_loop()
        this = asyncio.current_task()
        assert this is not None
        # SIGTERM must end the children as Ctrl-C does.
        loop.add_signal_handler(signal.SIGTERM, this.cancel)
        try:
            await self._run()
        except ChildError as error:
            if error.status == 2:
                words = error.words.removeprefix("offramp: ")
                raise OfframpError("demo", words, "a process cannot do its part") from None
            raise OfframpError("demo", error.words, f"a process ended with status {error.status}") from None
        finally:
            loop.remove_signal_handler(signal.SIGTERM)
            await asyncio.shield(self._end())
        return tuple(
            self._records.get(number, _lost(number, self._instance))
            for number in range(len(self._instance.tasks))
        )

    async def _run(self) -> None:
        self._progress("starting the edge and devices", 0, None)
        edge, *devices = await asyncio.gather(
            self._start("edge", self._edge_arguments()),
            *(
                self._start(f"device-{number}", self._device_arguments(number))
                for number in range(self._instance.system.devices)
            ),
        )
        port = (await edge.expect("ready"))["port"]
        for device in devices:
            await device.expect("loaded")
        # One after the other: each measures its own speed, which must not be the speed of a crowd.
        for device in devices:
            device.order({"edge": f"127.0.0.1:{port}"})
            self.calibrated.append(float((await device.expect("ready"))["slowdown"]))
        self._progress("making the policy", 0, None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLICY_S):
                await self._policy_made(edge, len(devices))
        lead_s = LEAD_S if self._settings.links is None else JOINED_S
        start_s = time.monotonic() + lead_s
        for device, order in zip(devices, self._starts(start_s), strict=True):
            device.order(order)
        self._progress("running", 0, None)
        last_s = max(task.deadline_s for task in self._instance.tasks)
        with contextlib.suppress(TimeoutError):
            # `wait_for` would leave a cancelled `gather` unread, which asyncio then complains of.
            async with asyncio.timeout(lead_s + last_s + OVERTIME_S):
                await asyncio.gather(
                    *(self._collect(number, device) for number, device in enumerate(devices))
                )

    def _starts(self, start_s: float) -> list[dict[str, float]]:
        """Each device's order to start: the stream's instant 0, and where a recorded link begins."""
        links, system = self._settings.links, self._instance.system
        if links is None:
            return [{"start_s": start_s}] * system.devices
        return [
            {"start_s": start_s, "link_origin_s": start_s + link.origin_s} for link in links.links(system)
        ]

    async def _policy_made(self, edge: Child, devices: int) -> None:
        """Wait until the edge decides for all of the devices with the policy that was asked for."""
        made = {"devices": None}
        while made["devices"] != devices:
            made = await edge.expect("deciding")
            self.notice = made["notice"]

    async def _start(self, name: str, arguments: Sequence[str]) -> Child:
        # A start that is cancelled half-way may leave a process that nobody knows, so none is.
        starting = asyncio.ensure_future(Child.start(name, arguments))
        self._starting.append(starting)
        return await asyncio.shield(starting)

    async def _end(self) -> None:
        started = await asyncio.gather(*self._starting, return_exceptions=True)
        await asyncio.gather(*(child.stop() for child in started if isinstance(child, Child)))

    async def _collect(self, number: int, device: Child) -> None:
        own = [n for n, task in enumerate(self._instance.tasks) if task.device == number]
        while (event := await device.next()) is not None:
            if event["event"] == "task":
                record = TaskRecord.from_dict(event["record"])
                self._records[own[record.sequence]] = record
                self._progress("running", len(self._records), record)
            elif event["event"] == "done":
                return

    def _edge_arguments(self) -> list[str]:
        settings = self._settings
        arguments = ["edge", "--port", "0", "--policy", settings.policy, "--seed", str(settings.seed)]
        arguments += ["--scenario", str(self._scenario_file), "--max-size", str(self._max_size())]
        network = settings.scenario.network
        arguments += ["--workers", str(network.edge_workers), "--max-batch", str(network.max_batch)]
        if settings.policy_file is not None:
            arguments += ["--policy-file", str(settings.policy_file)]
        if not settings.adapt:
            arguments += ["--no-adapt"]
        if settings.codecs:
            arguments += ["--codecs", settings.codecs]
        return arguments + self._bundle_arguments()

    def _device_arguments(self, number: int) -> list[str]:
        system, scenario = self._instance.system, self._settings.scenario
        arguments = ["device", "--edge", FROM_SUPERVISOR, "--id", f"device-{number}"]
        arguments += ["--tasks-file", str(self._shares[number]), "--max-size", str(self._max_size())]
        arguments += ["--slowdown", repr(system.device_slowdown[number])]
        arguments += ["--rate", f"{8 * system.bandwidth_bytes_per_s[number]:f}bit"]
        arguments += ["--delay", f"{scenario.network.link_delay_s:f}s"]
        if self._settings.link_trace is not None:
            arguments += ["--link-trace", str(self._settings.link_trace)]
        if self._settings.confidence is not None:
            arguments += ["--confidence", repr(self._settings.confidence)]
        return arguments + self._bundle_arguments()

    def _bundle_arguments(self) -> list[str]:
        return [] if self._settings.bundle is None else ["--bundle", str(self._settings.bundle)]

    def _max_size(self) -> int:
        return max(task.size for task in self._instance.tasks)


def _lost(number: int, instance: Instance) -> TaskRecord:
    """What is said of a task whose device ended without a word about it."""
    task = instance.tasks[number]
    return TaskRecord(
        number,
        task.arrival_s,
        task.size,
        task.budget_s,
        End.FAILED,
        DEVICE_LOST,
        0,
        0,
        False,
        None,
        Instants(),
        None,
        None,
        0.0,
    )
