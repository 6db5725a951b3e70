"""A recorded run against a rehearsal of it under `network` timing: what was to be expected, task by task."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from offramp.errors import OfframpError
from offramp.instance import Instance, instance_of
from offramp.link import trace_link
from offramp.linked_state import Replay
from offramp.observation import Observation
from offramp.options import System
from offramp.policies import Context, Policy, make_policy
from offramp.runtime.course import Followed, Resampled
from offramp.runtime.measured_terms import measured_terms
from offramp.runtime.outcomes import End, TaskRecord
from offramp.runtime.rehearsal import Spread, rehearse
from offramp.runtime.run_file import RunModel
from offramp.task import DROP, Decision
from offramp.validation import parse_json, read_text

ROUNDS = 8
"""Rehearsals with drawn durations."""


@dataclass(frozen=True, slots=True)
class Times:
    """Durations of a task in seconds: head, upload, waiting for link and edge, tail, arrival to answer."""

    device_s: float | None
    link_s: float | None
    queue_s: float | None
    edge_s: float | None
    total_s: float | None


@dataclass(frozen=True, slots=True)
class Recorded:
    """A run that was recorded.

    `believed` is what its devices and edge took the system for at the start; `links`, if they were recorded ones,
    are in place of the instance's.
    """

    instance: Instance
    records: tuple[TaskRecord, ...]
    policy: str
    seed: int
    believed: System
    links: Replay | None = None

    def rehearsed(self, policy: Policy, spread: Spread | None) -> tuple[TaskRecord, ...]:
        """What becomes of the tasks in a rehearsal with a policy."""
        links = None if self.links is None else self.links.links(self.instance.system)
        return rehearse(self.instance, policy, spread, self.believed, links)


class _Decided:
    """Gives each device's tasks the decisions that a run's edge gave them."""

    varies = "each decision is that of one task of the run"

    def __init__(self, run: Recorded) -> None:
        self._left: dict[int, deque[Decision]] = defaultdict(deque)
        for task, record in zip(run.instance.tasks, run.records, strict=True):
            self._left[task.device].append(_decision(record))

    def decide(self, observation: Observation) -> Decision:
        """The next one of the device."""
        return self._left[observation.task.device].popleft()


def load_run(path: Path) -> Recorded:
    """Read a recorded run, a file `offramp.run/1`.

    Raises OfframpError if it cannot be read, or has a field that is missing, out of its range or at odds with another:
    it names the task's number, the field and what is allowed. See `run_file`.
    """
    model = parse_json(RunModel, read_text(path, "run"), str(path))
    instance = instance_of(model.instance, f"{path}: instance")
    records = model.records(instance, str(path))
    believed = instance.system
    if model.calibrated is not None:
        if len(model.calibrated) != believed.devices:
            raise OfframpError(
                f"{path}: calibrated", len(model.calibrated), f"must be {believed.devices}", "record it again"
            )
        believed = replace(believed, device_slowdown=model.calibrated)
    links = None
    if model.links is not None:
        instants_ms = np.array(model.links.instants_ms, np.int64)
        links = Replay(trace_link(instants_ms, path, 0.0, 0.0), model.links.start_s)
    return Recorded(instance, records, model.policy, model.seed, believed, links)


def replay(run: Recorded) -> dict[str, Any]:
    """Rehearse the run's instance under `network` timing with the terms as measured; the report as a JSON object.

    `same_decisions_on_time_share` is with what the edge decided in the run, computations as fast as the run's were at
    that instant. `simulated_on_time_share` is with the policy itself, the mean of `ROUNDS` rehearsals whose
    computations differ from that, too, as the run's did. Devices and edge believe at first what they believed in the
    run. Errors are of tasks that were answered in both, with the run's decisions: |measured - simulated| finish as a
    share of the budget. `declared` has the same by what
    the instance said beforehand, where computations take exactly what they should.
    """
    terms = measured_terms(run.instance, run.records, steady=run.links is None)
    measured = replace(run, instance=terms.applied(run.instance))
    report, declared = _compare(measured, Followed(terms)), _compare(run, None)
    spreads = [Resampled(terms, np.random.default_rng([run.seed, number])) for number in range(ROUNDS)]
    return {
        "format": "offramp.replay/1",
        "policy": run.policy,
        "terms": terms.to_dict(),
        "on_time_share": _on_time_share(run.records),
        "simulated_on_time_share": float(np.mean([_policy_share(measured, spread) for spread in spreads])),
        **report,
        "declared": {
            "simulated_on_time_share": _policy_share(run, None),
            **{name: found for name, found in declared.items() if name != "tasks"},
        },
    }


def _policy_share(run: Recorded, spread: Spread | None) -> float:
    """On-time share with the run's policy, made anew."""
    context = Context(run.believed, "network", run.instance.scenario, np.random.default_rng(run.seed))
    return _on_time_share(run.rehearsed(make_policy(run.policy, context), spread))


def _compare(run: Recorded, spread: Spread | None) -> dict[str, Any]:
    again = run.rehearsed(_Decided(run), spread)
    rows, errors = [], []
    for task, record, other in zip(run.instance.tasks, run.records, again, strict=True):
        measured, simulated = _times(record), _times(other)
        rows.append(
            {
                "device": task.device,
                "exit": record.exit,
                "cut": record.cut,
                "end": str(record.end),
                "simulated_end": str(other.end),
                "simulated_on_time": other.end is End.ON_TIME,
                "measured": asdict(measured),
                "simulated": asdict(simulated),
            }
        )
        if measured.total_s is not None and simulated.total_s is not None and task.budget_s > 0:
            errors.append((measured.total_s - simulated.total_s) / task.budget_s)
    return {
        "same_decisions_on_time_share": _on_time_share(again),
        "finish_error": _quantiles(errors),
        "stages": {
            stage: _stage(rows, stage) for stage in ("device_s", "link_s", "queue_s", "edge_s", "total_s")
        },
        "tasks": rows,
    }


def _decision(record: TaskRecord) -> Decision:
    """What the edge decided, or where it was not heard, what the device did."""
    if record.decided is not None:
        return record.decided
    return Decision(record.exit, record.cut, record.codec) if record.exit else DROP


def _on_time_share(records: Sequence[TaskRecord]) -> float:
    return sum(record.end is End.ON_TIME for record in records) / len(records)


def _between(start_s: float | None, end_s: float | None) -> float | None:
    return None if start_s is None or end_s is None else end_s - start_s


def _times(record: TaskRecord) -> Times:
    at = record.measured
    link_s = _between(record.link_start_s, record.sent_s)
    until_edge_s = _between(at.send_s, at.edge_start_s)
    return Times(
        _between(at.device_start_s, at.send_s),
        link_s,
        None if until_edge_s is None or link_s is None else until_edge_s - link_s,
        _between(at.edge_start_s, at.finish_s),
        _between(record.arrival_s, at.finish_s),
    )


def _stage(rows: Sequence[dict[str, Any]], stage: str) -> dict[str, float] | None:
    """Medians of a stage over the tasks that have it in both, in seconds."""
    both = [
        (row["measured"][stage], row["simulated"][stage])
        for row in rows
        if row["measured"][stage] is not None and row["simulated"][stage] is not None
    ]
    if not both:
        return None
    measured, simulated = np.array(both).T
    return {
        "measured_median_s": float(np.median(measured)),
        "simulated_median_s": float(np.median(simulated)),
        "difference_median_s": float(np.median(measured - simulated)),
        "tasks": len(both),
    }


def _quantiles(errors: Sequence[float]) -> dict[str, float] | None:
    if not errors:
        return None
    size = np.abs(np.array(errors))
    return {
        "median": float(np.median(size)),
        "p95": float(np.quantile(size, 0.95)),
        "bias": float(np.median(errors)),
        "tasks": len(errors),
    }
