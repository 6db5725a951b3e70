"""The demo: one drawn stream of tasks for an edge and devices on this machine, and what came of them."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from offramp.errors import OfframpError
from offramp.host_profile import check_confidence
from offramp.instance import Instance, draw_instance
from offramp.link import load_trace
from offramp.linked_state import Replay
from offramp.model.bundle import Bundle
from offramp.model.codecs import chosen_codecs
from offramp.policies import check_policy
from offramp.profile import ExitCoefficients
from offramp.runtime.demo_processes import DemoSettings, Progress, Supervisor
from offramp.runtime.edge_main import check_edge, exits_with
from offramp.runtime.outcomes import End, TaskRecord
from offramp.runtime.summary import summarise
from offramp.runtime.workload import PlannedTask, Samples, save_share
from offramp.task import Decision
from offramp.worthwhile import worthwhile


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
    check_policy(settings.policy, settings.policy_file)
    chosen_codecs(settings.codecs)
    check_edge(settings.scenario.network.edge_workers, settings.scenario.network.max_batch)
    if settings.confidence is not None:
        check_confidence(settings.confidence)
    fastest = min(settings.scenario.slowdowns)
    if fastest < 1.0:
        raise OfframpError("device_slowdown", fastest, "must be >= 1", "no device is faster than its machine")


def run_demo(settings: DemoSettings, bundle: Bundle, samples: Samples, progress: Progress) -> DemoRun:
    """Draw the stream, run it, and end every process whatever happens.

    Raises OfframpError if it cannot be run, KeyboardInterrupt if the user stops it, SystemExit upon SIGTERM.
    """
    check_settings(settings)
    exits = worthwhile(exits_with(bundle, settings.codecs))
    tasks_rng, rows_rng = np.random.default_rng(settings.seed).spawn(2)
    instance = draw_instance(settings.scenario, exits, tasks_rng)
    with tempfile.TemporaryDirectory(prefix="offramp-demo-") as folder:
        shares = _write_shares(Path(folder), instance, samples, rows_rng)
        scenario_file = Path(folder) / "scenario.json"
        scenario_file.write_text(settings.told.model_dump_json(), encoding="utf-8")
        supervisor = Supervisor(settings, instance, shares, scenario_file, progress)
        try:
            records = asyncio.run(supervisor.run())
        except asyncio.CancelledError:
            # asyncio makes a KeyboardInterrupt of Ctrl-C, so SIGTERM alone ends here; a shell gives it this status.
            raise SystemExit(128 + signal.SIGTERM) from None
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


def counts_by_option(records: Sequence[TaskRecord]) -> Iterator[tuple[Decision, int, int]]:
    """What was chosen, tasks answered like that, and of these on time; exits and cuts ascending."""
    chosen: dict[tuple[int, int, str], list[TaskRecord]] = {}
    for record in records:
        if record.answered:
            chosen.setdefault((record.exit, record.cut, record.codec), []).append(record)
    for option, answered in sorted(chosen.items()):
        yield Decision(*option), len(answered), sum(record.end is End.ON_TIME for record in answered)
