"""The demo: an edge and its devices as real processes on this machine, over one drawn stream of tasks."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from offramp.errors import OfframpError
from offramp.instance import Instance, draw_instance
from offramp.link import load_trace
from offramp.linked_state import Replay
from offramp.model.bundle import Bundle
from offramp.model.codecs import chosen_codecs
from offramp.options import worthwhile
from offramp.profile import ExitCoefficients, check_confidence
from offramp.runtime.configuration import check_policy_name
from offramp.runtime.device_main import FROM_SUPERVISOR
from offramp.runtime.edge_main import check_edge, exits_with
from offramp.runtime.outcomes import End, Instants, TaskRecord
from offramp.runtime.summary import summarise
from offramp.runtime.supervision import Child, ChildError
from offramp.runtime.workload import PlannedTask, Samples, save_share
from offramp.scenario import Scenario
from offramp.task import Decision

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


def over_recording(settings: DemoSettings, trace: Path, start_s: float) -> DemoSettings:
    """The same, where every device's link replays a recording; its mean is what is declared of the links.

    Raises OfframpError if the file is none.
    """
    links = Replay(load_trace(trace, 0.0, 0.0), start_s)
    mean = {"bandwidth_bytes_per_s": links.recording.bandwidth_bytes_per_s}
    scenario = settings.scenario.model_copy(update=mean)
    told = scenario if settings.told == settings.scenario else settings.told
    return replace(settings, scenario=scenario, told=told, link_trace=trace, links=links)


@dataclass(frozen=True, slots=True)
class DemoRun:
    """What came of a demo: `records[n]` is what became of `instance.tasks[n]`.

    `calibrated` is what each device measured itself to be before the stream, as a slowdown on the profile; `links`
    are recorded ones, in place of the instance's.
    """

    instance: Instance
    records: tuple[TaskRecord, ...]
    summary: dict[str, Any]
    policy: str
    seed: int
    calibrated: tuple[float, ...] | None = None
    links: Replay | None = None

    def to_dict(self) -> dict[str, Any]:
        """The file `run.json`, format `offramp.run/1`."""
        import json

        tasks = [
            {"device": task.device, **record.to_dict()}
            for task, record in zip(self.instance.tasks, self.records, strict=True)
        ]
        return {
            "format": "offramp.run/1",
            "policy": self.policy,
            "seed": self.seed,
            "calibrated": self.calibrated,
            "links": None if self.links is None else self._links(self.links),
            "summary": self.summary,
            "instance": json.loads(self.instance.to_json()),
            "tasks": tasks,
        }

    @staticmethod
    def _links(links: Replay) -> dict[str, Any]:
        return {"start_s": links.start_s, "instants_ms": links.recording.instants_ms.tolist()}


def check_settings(settings: DemoSettings) -> None:
    """Raises OfframpError for a policy or codec that does not exist, or devices that this machine cannot stand for."""
    check_policy_name(settings.policy)
    chosen_codecs(settings.codecs)
    check_edge(settings.scenario.network.edge_workers, settings.scenario.network.max_batch)
    if settings.confidence is not None:
        check_confidence(settings.confidence)
    fastest = min(settings.scenario.slowdowns)
    if fastest < 1.0:
        raise OfframpError("device_slowdown", fastest, "must be >= 1", "no device is faster than its machine")


def run_demo(settings: DemoSettings, bundle: Bundle, samples: Samples, progress: Progress) -> DemoRun:
    """Draw the stream, run it, and end every process whatever happens.

    Raises OfframpError if it cannot be run, KeyboardInterrupt if the user stops it.
    """
    check_settings(settings)
    exits = worthwhile(exits_with(bundle, settings.codecs))
    tasks_rng, rows_rng = np.random.default_rng(settings.seed).spawn(2)
    instance = draw_instance(settings.scenario, exits, tasks_rng)
    with tempfile.TemporaryDirectory(prefix="offramp-demo-") as folder:
        shares = _write_shares(Path(folder), instance, samples, rows_rng)
        scenario_file = Path(folder) / "scenario.json"
        scenario_file.write_text(settings.told.model_dump_json(), encoding="utf-8")
        supervisor = _Supervisor(settings, instance, shares, scenario_file, progress)
        records = asyncio.run(supervisor.run())
    summary = _summary(instance, records, exits, samples) | {"notice": supervisor.notice}
    calibrated = tuple(supervisor.calibrated)
    return DemoRun(instance, records, summary, settings.policy, settings.seed, calibrated, settings.links)


def _write_shares(folder: Path, instance: Instance, samples: Samples, rng: np.random.Generator) -> list[Path]:
    planned = [
        PlannedTask(task.arrival_s, task.budget_s, rng.integers(len(samples), size=task.size))
        for task in instance.tasks
    ]
    shares = []
    for device in range(instance.system.devices):
        shares.append(folder / f"device-{device}.npz")
        own = [plan for plan, task in zip(planned, instance.tasks, strict=True) if task.device == device]
        save_share(shares[-1], own, samples)
    return shares


def _summary(
    instance: Instance,
    records: Sequence[TaskRecord],
    exits: Sequence[ExitCoefficients],
    samples: Samples,
) -> dict[str, Any]:
    return summarise(records, [exit.accuracy for exit in exits]) | {
        "devices": instance.system.devices,
        "data": samples.source,
    }


class _Supervisor:
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
            await asyncio.wait_for(self._policy_made(edge, len(devices)), POLICY_S)
        start_s = time.monotonic() + LEAD_S
        for device, order in zip(devices, self._starts(start_s), strict=True):
            device.order(order)
        self._progress("running", 0, None)
        last_s = max(task.deadline_s for task in self._instance.tasks)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(
                asyncio.gather(*(self._collect(number, device) for number, device in enumerate(devices))),
                LEAD_S + last_s + OVERTIME_S,
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
        "device-lost",
        0,
        0,
        False,
        None,
        Instants(),
        None,
        None,
        0.0,
    )


def counts_by_option(records: Sequence[TaskRecord]) -> Iterator[tuple[Decision, int, int]]:
    """What was chosen, tasks answered like that, and of these on time; exits and cuts ascending."""
    chosen: dict[tuple[int, int, str], list[TaskRecord]] = {}
    for record in records:
        if record.answered:
            chosen.setdefault((record.exit, record.cut, record.codec), []).append(record)
    for option, answered in sorted(chosen.items()):
        yield Decision(*option), len(answered), sum(record.end is End.ON_TIME for record in answered)
