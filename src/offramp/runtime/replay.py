"""A recorded run against the `network` timing model: what the simulator predicts of it, task by task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from offramp.errors import OfframpError
from offramp.instance import Instance, parse_instance
from offramp.observation import Observation
from offramp.policies import Context, make_policy
from offramp.runtime.outcomes import End, TaskRecord
from offramp.schedule import Schedule, ScheduledTask
from offramp.simulator import simulate
from offramp.task import DROP, Decision
from offramp.validation import dump_json, parse_json, read_text


class RunModel(BaseModel):
    """The file `offramp.run/1` as the demo writes it."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    format: Literal["offramp.run/1"]
    policy: str
    seed: int
    instance: dict[str, Any]
    tasks: Annotated[tuple[dict[str, Any], ...], Field(min_length=1)]


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
    """A run that was recorded."""

    instance: Instance
    records: tuple[TaskRecord, ...]
    policy: str
    seed: int


class _Decided:
    """Gives the decisions of a run again."""

    def __init__(self, decisions: Sequence[Decision]) -> None:
        self._left = iter(decisions)

    def decide(self, observation: Observation) -> Decision:
        """The next one."""
        return next(self._left)


def load_run(path: Path) -> Recorded:
    """Read a recorded run. Raises OfframpError if the file is not one."""
    model = parse_json(RunModel, read_text(path, "run"), str(path))
    instance = parse_instance(dump_json(model.instance), str(path))
    try:
        records = tuple(
            TaskRecord.from_dict({key: value for key, value in task.items() if key != "device"})
            for task in model.tasks
        )
    except (TypeError, KeyError, ValueError) as error:
        raise OfframpError(
            f"{path}: tasks", str(error), "must be records of a run", "record one with offramp demo"
        ) from None
    if len(records) != len(instance.tasks):
        raise OfframpError(
            f"{path}: tasks", len(records), f"must be {len(instance.tasks)}", "record it again"
        )
    return Recorded(instance, records, model.policy, model.seed)


def replay(run: Recorded) -> dict[str, Any]:
    """Simulate the run's instance under `network` timing; the report as a JSON object.

    `simulated_on_time_share` is with the policy itself, `same_decisions_on_time_share` with the decisions that the
    run made. Errors are of tasks that were answered in both, with the run's decisions: |measured - simulated|
    finish as a share of the budget.
    """
    again = simulate(run.instance, _Decided([_decision(record) for record in run.records]), "network")
    context = Context(run.instance.system, "network", run.instance.scenario, np.random.default_rng(run.seed))
    fresh = simulate(run.instance, make_policy(run.policy, context), "network")
    rows, errors = [], []
    for task, record, row in zip(run.instance.tasks, run.records, again.tasks, strict=True):
        options = run.instance.system.options(task.device, task.size)
        upload_s = None
        if row.edge_start_s is not None:
            upload_s = float(options.upload_s[options.index(row.exit, row.cut, row.codec)])
        measured, simulated = _measured(record), _simulated(row, task.arrival_s, upload_s)
        rows.append(
            {
                "device": task.device,
                "exit": record.exit,
                "cut": record.cut,
                "end": str(record.end),
                "simulated_on_time": row.on_time,
                "measured": asdict(measured),
                "simulated": asdict(simulated),
            }
        )
        if measured.total_s is not None and simulated.total_s is not None and task.budget_s > 0:
            errors.append((measured.total_s - simulated.total_s) / task.budget_s)
    return {
        "format": "offramp.replay/1",
        "policy": run.policy,
        "on_time_share": sum(record.end is End.ON_TIME for record in run.records) / len(run.records),
        "same_decisions_on_time_share": _on_time_share(again),
        "simulated_on_time_share": _on_time_share(fresh),
        "finish_error": _quantiles(errors),
        "stages": {
            stage: _stage(rows, stage) for stage in ("device_s", "link_s", "queue_s", "edge_s", "total_s")
        },
        "tasks": rows,
    }


def _decision(record: TaskRecord) -> Decision:
    return Decision(record.exit, record.cut, record.codec) if record.exit else DROP


def _on_time_share(schedule: Schedule) -> float:
    return sum(row.on_time for row in schedule.tasks) / len(schedule.tasks)


def _between(start_s: float | None, end_s: float | None) -> float | None:
    return None if start_s is None or end_s is None else end_s - start_s


def _measured(record: TaskRecord) -> Times:
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


def _simulated(row: ScheduledTask, arrival_s: float, upload_s: float | None) -> Times:
    until_edge_s = _between(row.send_s, row.edge_start_s)
    return Times(
        _between(row.device_start_s, row.send_s),
        upload_s,
        None if until_edge_s is None or upload_s is None else until_edge_s - upload_s,
        _between(row.edge_start_s, row.finish_s),
        _between(arrival_s, row.finish_s),
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
