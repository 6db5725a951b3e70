"""What was decided for each task and what came of it: the file format `offramp.schedule/1`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from offramp.task import UNCODED
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
    codec: str = UNCODED

    def to_dict(self) -> dict[str, Any]:
        """The file's JSON object; it names the codec where there is one."""
        value = asdict(self)
        if self.codec == UNCODED:
            del value["codec"]
        return value


DROPPED = ScheduledTask(0, 0, None, None, None, None, on_time=False, gain=0.0)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A decision for every task, with the proof a solver has: `gain` <= optimum <= `upper_bound` (None: no proof).

    `notice` says why something else decided in the policy's place, None if nothing did.
    """

    tasks: tuple[ScheduledTask, ...]
    gain: float
    upper_bound: float | None
    status: Status
    solve_s: float = 0.0
    notice: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The file's JSON object."""
        said = {} if self.notice is None else {"notice": self.notice}
        return said | {
            "format": "offramp.schedule/1",
            "gain": self.gain,
            "upper_bound": self.upper_bound,
            "status": self.status,
            "solve_s": self.solve_s,
            "tasks": [task.to_dict() for task in self.tasks],
        }

    def to_json(self) -> str:
        """The file's text."""
        return dump_json(self.to_dict())
