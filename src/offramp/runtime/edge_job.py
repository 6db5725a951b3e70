"""What the edge keeps of a decided task, what it asks to be done for it, and what it counts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from offramp.options import System
from offramp.runtime.processor import Crossed
from offramp.runtime.protocol import Message, Refusal
from offramp.task import UNCODED, Decision


@dataclass(frozen=True, slots=True)
class Say:
    """Send a control message to a session."""

    session: bytes
    message: Message


@dataclass(frozen=True, slots=True)
class Reply:
    """Send a message on a session's stream of tensors."""

    session: bytes
    message: Message


@dataclass(frozen=True, slots=True)
class Run:
    """Compute the layers behind a cut from what has crossed, together for all; then call `EdgeCore.computed`."""

    batch: Batch
    crossed: tuple[Crossed, ...]


@dataclass(frozen=True, slots=True)
class Hang:
    """Close a session's streams."""

    session: bytes


@dataclass(frozen=True, slots=True)
class Remake:
    """Make a policy for a changed system; then call `EdgeCore.policy_made` with this version."""

    version: int
    system: System


@dataclass(frozen=True, slots=True)
class Foresee:
    """Call `EdgeCore.foresee` a moment later, when what is asked for now has been done."""

    session: bytes
    size: int
    budget_s: float


Action = Say | Reply | Run | Hang | Remake | Foresee


@dataclass(slots=True, eq=False)
class Work:
    """A decided task, from the verdict until the edge has no more part in it. Instants on the edge's clock.

    `unasked_s`: its budget, if its device went by what stood.
    """

    session: bytes
    sequence: int
    decision: Decision
    size: int
    tail_s: float
    arrival_s: float
    deadline_s: float
    crossed: Crossed | None = None
    offered: bool = False
    unasked_s: float | None = None


@dataclass(slots=True, eq=False)
class Batch:
    """One task or several, of one exit and cut, that a worker runs since `start_s`, for `takes_s` as predicted.

    `apart`: whether a thread of its own computes it, which goes on to the next by itself.
    """

    works: tuple[Work, ...]
    start_s: float
    takes_s: float
    apart: bool = False

    @property
    def tasks(self) -> tuple[tuple[Decision, int], ...]:
        """Decision and size of each."""
        return tuple((work.decision, work.size) for work in self.works)


@dataclass(slots=True)
class Counts:
    """What the edge has done so far; `runs` is less than `answered` where tasks were run together.

    `unasked`: those of the decided tasks whose devices went by what stood.
    """

    announced: int = 0
    decided: int = 0
    unasked: int = 0
    turned_away: dict[Refusal, int] = field(default_factory=dict)
    chosen: dict[Decision, int] = field(default_factory=dict)
    answered: int = 0
    runs: int = 0
    declined: dict[Refusal, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        chosen = {
            f"{made.exit}/{made.cut}" + (f"/{made.codec}" if made.codec != UNCODED else ""): number
            for made, number in self.chosen.items()
        }
        return asdict(replace(self, chosen={})) | {"chosen": chosen}
