"""What arrives and what is decided about it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Task:
    """One task of the stream, J_n of Section II-A.

    Attributes:
        arrival_s: instant at which its device has it, seconds, t_n^a.
        size: inputs (images) in the task, 1 and up, D_n.
        budget_s: relative deadline, seconds, > 0, τ_n.
        device: index of the device that owns it, 0..N-1.
    """

    arrival_s: float
    size: int
    budget_s: float
    device: int

    @property
    def deadline_s(self) -> float:
        """Instant after which an answer earns nothing, constraint C2 of Eq. 2."""
        return self.arrival_s + self.budget_s


UNCODED = "fp32"
"""The codec that changes nothing: what crosses a cut travels in the model's own types."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The exit (m_n: 0 drops the task, 1..u), the cut (p_n: layers on the device, 0..l), and how what crosses travels.

    The paper knows no codecs: there everything crosses as it is.
    """

    exit: int
    cut: int
    codec: str = UNCODED


DROP = Decision(exit=0, cut=0)
