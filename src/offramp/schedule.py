"""What was decided for each task and what came of it: the file format `offramp.schedule/1`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from offramp import equations
from offramp.instance import Instance
from offramp.task import Decision
from offramp.validation import dump_json

Status = Literal["optimal", "feasible"]


@dataclass(frozen=True, slots=True)
class ScheduledTask:
    """A task's decision, instants in seconds (None where that never happens), and what it earned."""

    exit: int
    cut: int
    device_start_s: float | None
    send_s: float | None
    edge_start_s: float | None
    finish_s: float | None
    on_time: bool
    gain: float


DROPPED = ScheduledTask(0, 0, None, None, None, None, on_time=False, gain=0.0)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A decision for every task, with the proof a solver has: `gain` <= optimum <= `upper_bound` (None: no proof)."""

    tasks: tuple[ScheduledTask, ...]
    gain: float
    upper_bound: float | None
    status: Status
    solve_s: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The file's JSON object."""
        return {
            "format": "offramp.schedule/1",
            "gain": self.gain,
            "upper_bound": self.upper_bound,
            "status": self.status,
            "solve_s": self.solve_s,
            "tasks": [asdict(task) for task in self.tasks],
        }

    def to_json(self) -> str:
        """The file's text."""
        return dump_json(self.to_dict())


def paper_schedule(
    instance: Instance,
    decisions: Sequence[Decision],
    *,
    upper_bound: float | None = None,
    status: Status = "feasible",
    solve_s: float = 0.0,
) -> Schedule:
    """Lay decisions for all tasks out in time under the `paper` model and count what they earn."""
    system = instance.system
    device_free_s = [float("-inf")] * system.devices
    edge_free_s = float("-inf")
    rows = []
    for task, decision in zip(instance.tasks, decisions, strict=True):
        if decision.exit == 0:
            rows.append(DROPPED)
            continue
        options = system.options(task.device, task.size)
        row = options.index(decision.exit, decision.cut)
        line = equations.paper_timeline(
            task.arrival_s,
            device_free_s[task.device],
            edge_free_s,
            options.head_s[row],
            options.upload_s[row],
            options.tail_s[row],
        )
        device_start_s, send_s, edge_start_s, finish_s = (float(instant) for instant in line)
        device_free_s[task.device], edge_free_s = send_s, finish_s
        met = bool(equations.on_time(line.finish_s, task.deadline_s))
        rows.append(
            ScheduledTask(
                decision.exit,
                decision.cut,
                device_start_s,
                send_s,
                edge_start_s,
                finish_s,
                met,
                float(options.gain[row]) if met else 0.0,
            )
        )
    total = sum(row.gain for row in rows)
    return Schedule(tuple(rows), total, upper_bound, status, solve_s)
