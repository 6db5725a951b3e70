"""What a device believes of its edge, and the decisions that stand, looked up before a task waits for them."""

from __future__ import annotations

from dataclasses import dataclass, field

from offramp.options import OptionTable
from offramp.runtime.device_alone import Quickest
from offramp.runtime.device_job import ways_alone
from offramp.runtime.own import OwnSystem
from offramp.runtime.protocol import Standing
from offramp.task import Decision, Task

MOST_STANDING = 256
"""Kinds of tasks for which the edge may let decisions stand."""


@dataclass(frozen=True, slots=True)
class Ready:
    """What a device needs to begin a task at once.

    Attributes:
        standing: the edge's word.
        decision, row: what it says, in the device's own `options` for tasks of that size.
        head_s, upload_s: what it is predicted to take, seconds.
        local: whether the edge has no part in it.
        alone: how the device would end such a task soonest by itself.
        version: of the system that the options are of; with another one they must be looked up again.
    """

    standing: Standing
    decision: Decision
    row: int
    options: OptionTable
    head_s: float
    upload_s: float
    local: bool
    alone: Quickest
    version: int


def look_up(standing: Standing, own: OwnSystem) -> Ready | None:
    """The decision in the device's own options; None if they do not have it."""
    options = own.options_at(standing.size, standing.bandwidth_bytes_per_s)
    decision = Decision(standing.exit, standing.cut, standing.codec)
    if not options.offers(decision):
        return None
    row = options.row_of(decision)
    return Ready(
        standing,
        decision,
        row,
        options,
        float(options.head_s[row]),
        float(options.upload_s[row]),
        bool(options.local[row]),
        ways_alone(options).quickest,
        own.version,
    )


@dataclass(slots=True)
class EdgeView:
    """What the device believes of its edge; `standing` has the decisions that stand by size and budget."""

    connected: bool = False
    trusted: bool = False
    closing: bool = False
    verdicts: int = 0
    round_trip_s: float = 0.0
    standing: dict[tuple[int, float], Ready] = field(default_factory=dict)

    def stands(self, standing: Standing, own: OwnSystem) -> None:
        """A decision stands, unless the device does not have it."""
        if len(self.standing) == MOST_STANDING:
            self.standing.clear()
        kind = standing.size, standing.budget_s
        ready = look_up(standing, own)
        if ready is None:
            self.standing.pop(kind, None)
        else:
            self.standing[kind] = ready

    def ready(self, task: Task, own: OwnSystem) -> Ready | None:
        """What stands for a task of this kind, in the options that `own` has at present."""
        found = self.standing.get((task.size, task.budget_s))
        if found is not None and found.version != own.version:
            self.stands(found.standing, own)
            found = self.standing.get((task.size, task.budget_s))
        return found
