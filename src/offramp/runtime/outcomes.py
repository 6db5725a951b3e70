"""How tasks end, and the books that a device keeps of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from offramp.task import UNCODED, Decision

DEVICE_LOST = "device-lost"
"""Why a task failed whose device ended without a word about it."""


class End(StrEnum):
    """The one end of a task."""

    ON_TIME = "on_time"
    LATE = "late"
    REJECTED = "rejected"
    EXPIRED = "expired"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Instants:
    """When the stages of a task began and when it finished; None for what it did not reach."""

    device_start_s: float | None = None
    send_s: float | None = None
    edge_start_s: float | None = None
    finish_s: float | None = None

    def as_tuple(self) -> tuple[float | None, float | None, float | None, float | None]:
        """In the order in which they happen."""
        return self.device_start_s, self.send_s, self.edge_start_s, self.finish_s

    def counted_from(self, origin_s: float) -> Instants:
        """The same on a clock that is 0 at `origin_s`."""
        return Instants(*(_since(instant_s, origin_s) for instant_s in self.as_tuple()))


def _since(instant_s: float | None, origin_s: float) -> float | None:
    return None if instant_s is None else instant_s - origin_s


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """A task that has ended. Instants count from the start of the device's stream.

    Attributes:
        sequence: the device's count of its tasks, from 0.
        reason: why it was rejected, expired or failed; empty otherwise.
        exit, cut: where it was computed; exit 0 if it was not.
        local: whether the device finished it without the edge after the edge had a part in its plan.
        predicted: what was expected when it was decided; None if no prediction was made.
        link_start_s, sent_s: when the upload began and when it had crossed the link; None without one.
        gain: Eq. 1 if on time, else 0.
        correct: inputs answered right; None without labels or without an answer.
        labels: the answer, one class for each input; empty without an answer.
        codec: how what crossed the cut travelled.
        decided: what the edge decided, of which the device may have departed; None if it heard nothing.
        edge_waited_s, edge_computed_s: how long the edge says that the task waited there, and took; None without its
            answer.
    """

    sequence: int
    arrival_s: float
    size: int
    budget_s: float
    end: End
    reason: str
    exit: int
    cut: int
    local: bool
    predicted: Instants | None
    measured: Instants
    link_start_s: float | None
    sent_s: float | None
    gain: float
    correct: int | None = None
    labels: tuple[int, ...] = ()
    codec: str = UNCODED
    decided: Decision | None = None
    edge_waited_s: float | None = None
    edge_computed_s: float | None = None

    @property
    def answered(self) -> bool:
        """Whether there is an answer, in time or not."""
        return self.end in (End.ON_TIME, End.LATE)

    def counted_from(self, origin_s: float) -> TaskRecord:
        """The record with its instants on a clock that is 0 at `origin_s`."""
        return replace(
            self,
            arrival_s=self.arrival_s - origin_s,
            link_start_s=_since(self.link_start_s, origin_s),
            sent_s=_since(self.sent_s, origin_s),
            predicted=None if self.predicted is None else self.predicted.counted_from(origin_s),
            measured=self.measured.counted_from(origin_s),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"labels": list(self.labels)}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> TaskRecord:
        """The reverse of `to_dict`."""
        predicted, decided = value["predicted"], value.get("decided")
        return cls(
            **{
                **value,
                "decided": None if decided is None else Decision(**decided),
                "end": End(value["end"]),
                "predicted": None if predicted is None else Instants(**predicted),
                "measured": Instants(**value["measured"]),
                "labels": tuple(value["labels"]),
            }
        )


class Ledger:
    """Counts such that `submitted = ended + in flight` at every moment; a second end is an error."""

    def __init__(self) -> None:
        self._open: set[int] = set()
        self._ends: Counter[End] = Counter()
        self.late_answers = 0

    def accept(self, sequence: int) -> None:
        """A task is taken on. ValueError if it is open already."""
        if sequence in self._open:
            raise ValueError(f"task {sequence} is open already")
        self._open.add(sequence)

    def close(self, sequence: int, end: End) -> None:
        """The one end of a task. ValueError if it is not open."""
        if sequence not in self._open:
            raise ValueError(f"task {sequence} is not open")
        self._open.remove(sequence)
        self._ends[end] += 1

    @property
    def in_flight(self) -> int:
        """Tasks without an end yet."""
        return len(self._open)

    @property
    def ended(self) -> int:
        """Tasks with an end."""
        return self._ends.total()

    @property
    def submitted(self) -> int:
        """Tasks taken on."""
        return self.ended + self.in_flight

    def counts(self) -> dict[str, int]:
        """`submitted` and each end, by name."""
        return {"submitted": self.submitted} | {str(end): self._ends[end] for end in End}
