"""What a device keeps of a task on its way, and what it asks to be done for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np

from offramp.options import OptionTable
from offramp.runtime.device_alone import Alone, Claim
from offramp.runtime.outcomes import End, Instants, TaskRecord
from offramp.runtime.protocol import Begun, CodedUpload, Message, Upload
from offramp.task import DROP, UNCODED, Decision, Task


class Stage(Enum):
    """Where a task is on its way."""

    DECIDING = auto()
    QUEUED = auto()
    COMPUTING = auto()
    LINK = auto()
    UPLOADING = auto()
    AWAITING = auto()


@dataclass(frozen=True, slots=True)
class Say:
    """Send a control message."""

    message: Message


@dataclass(frozen=True, slots=True)
class Compute:
    """Run layers start+1..stop of an exit for a task; then call `DeviceCore.computed`.

    With `start` > 0 the input is what the device kept at that cut. `stop` = l gives the answer. With a `codec` the
    work includes encoding what crosses at `stop`.
    """

    sequence: int
    exit: int
    start: int
    stop: int
    codec: str = UNCODED


@dataclass(frozen=True, slots=True)
class Carry:
    """Upload what crosses at the cut; call `sending` with the frame's bytes, then `carried`.

    `unasked`: what goes with it because the task was not announced. Its answer should be here at `answer_s`.
    """

    sequence: int
    exit: int
    cut: int
    size: int
    deadline_s: float
    codec: str = UNCODED
    unasked: Unasked | None = None
    answer_s: float | None = None


@dataclass(frozen=True, slots=True)
class Unasked:
    """What an edge is to know of a task beside its upload, if it was not announced: see `protocol.Begun`."""

    budget_s: float
    slowdown: float
    margin: float

    def begun(self, upload: Upload | CodedUpload) -> Begun:
        """Both in one message."""
        return Begun(self.budget_s, self.slowdown, self.margin, upload)


@dataclass(frozen=True, slots=True)
class SendProbe:
    """Upload so many bytes of nothing; call `sending` with the frame's bytes, then `probed`."""

    size_bytes: int


@dataclass(frozen=True, slots=True)
class Finished:
    """A task has ended."""

    record: TaskRecord


@dataclass(frozen=True, slots=True)
class Decided:
    """It is settled where a task is to be computed, for now: by the edge, or by the device alone."""

    sequence: int
    decision: Decision


Action = Say | Compute | Carry | SendProbe | Decided | Finished


@dataclass(slots=True, eq=False)
class Job:
    """A task on its way; instants on the device's clock."""

    sequence: int
    task: Task
    options: OptionTable
    stage: Stage = Stage.DECIDING
    decision: Decision = DROP
    decided: Decision | None = None
    start: int = 0  # layers of the exit that need not be run again
    head_s: float = 0.0
    upload_s: float = 0.0
    local: bool = False  # nothing more is expected of the edge
    fallback: bool = False
    unasked: Unasked | None = None
    kept: Decision | None = None  # exit and cut of the tensors at hand
    announced_s: float = math.nan
    check_s: float = math.inf
    predicted: Instants | None = None
    device_start_s: float | None = None
    send_s: float | None = None
    link_start_s: float | None = None
    sent_s: float | None = None
    edge_start_s: float | None = None
    edge_waited_s: float | None = None
    edge_computed_s: float | None = None

    def alone(self) -> Alone:
        """How the device can finish the task by itself. What it has at a cut is not computed again for that exit."""
        return ways_alone(self.options, self.kept)

    def plan_alone(self, row: int, takes_s: float, free_s: float) -> Plan:
        """The plan to finish the task by that option from `free_s` on."""
        decision, kept = self.options.decision(row), self.kept
        start = kept.cut if kept is not None and kept.exit == decision.exit else 0
        return Plan(decision, start, takes_s, free_s + takes_s)

    def take(self, plan: Plan) -> None:
        """Go by this plan from here on."""
        self.decision, self.start, self.head_s = plan.decision, plan.start, plan.takes_s

    def claim(self) -> Claim:
        """What the task, which waits for the processor, asks of it."""
        after_s = 0.0
        if not self.local and self.predicted is not None:
            ends_s, sends_s = self.predicted.finish_s, self.predicted.send_s
            after_s = max(0.0, ends_s - sends_s) if ends_s is not None and sends_s is not None else 0.0
        gain = float(self.options.gain[self.options.row_of(self.decision)])
        return Claim(self.head_s, self.task.deadline_s - after_s, gain)

    def record(self, end: End, reason: str, now_s: float) -> TaskRecord:
        """What is written down of the task when it ends."""
        answered = end in (End.ON_TIME, End.LATE)
        gain = 0.0
        if end is End.ON_TIME:
            gain = float(self.options.gain[self.options.row_of(self.decision)])
        finish_s = now_s if answered else None
        return TaskRecord(
            self.sequence,
            self.task.arrival_s,
            self.task.size,
            self.task.budget_s,
            end,
            reason,
            self.decision.exit,
            self.decision.cut,
            self.fallback,
            self.predicted,
            Instants(self.device_start_s, self.send_s, self.edge_start_s, finish_s),
            self.link_start_s,
            self.sent_s,
            gain,
            codec=self.decision.codec,
            decided=self.decided,
            edge_waited_s=self.edge_waited_s,
            edge_computed_s=self.edge_computed_s,
        )


def ways_alone(options: OptionTable, kept: Decision | None = None) -> Alone:
    """How a device can finish a task by itself, with what it has at a cut, if it has kept that."""
    takes_s = options.head_s.copy()
    if kept is not None:
        takes_s[options.exit == kept.exit] -= options.head_s[options.index(kept.exit, kept.cut)]
    rows = np.flatnonzero(options.local)
    return Alone(rows, takes_s[rows], options.gain[rows])


@dataclass(frozen=True, slots=True)
class Plan:
    """How the device finishes a task alone: layers start+1..l of an exit, which take `takes_s` seconds."""

    decision: Decision
    start: int
    takes_s: float
    finish_s: float
