"""What tasks to expect: gaps between arrivals, sizes with their budgets, and whose tasks they are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch

import numpy as np

from offramp.equations import FloatArray
from offramp.scenario import Scenario
from offramp.streams import Bernoulli, Bursty, Poisson, Recorded

_POISSON_ATOMS = 400
_MAX_SLOTS = 20_000
"""Horizons of more slots than this are planned as independent arrivals at the same mean rate."""


@dataclass(frozen=True, slots=True)
class TaskClass:
    """Tasks of one size: their relative budget in seconds (> 0) and their share of all tasks."""

    size: int
    budget_s: float
    share: float


@dataclass(frozen=True, slots=True, eq=False)
class Traffic:
    """A renewal model of the stream as a whole.

    Attributes:
        gaps_s, gap_share: (G,) durations >= 0 between successive arrivals, ascending, and their probabilities.
            What is longer than the horizon that the model was made for is lumped into the last.
        classes: sizes that occur; shares sum to 1.
        device_share: (N,) each device's share of the tasks; sums to 1.
        slot_s: the slot that every gap and budget is a multiple of, or None.
    """

    gaps_s: FloatArray
    gap_share: FloatArray
    classes: tuple[TaskClass, ...]
    device_share: tuple[float, ...]
    slot_s: float | None

    @property
    def horizon_s(self) -> float:
        """The longest budget: no backlog of tasks that meet their deadlines exceeds it."""
        return max(task_class.budget_s for task_class in self.classes)


def scenario_traffic(scenario: Scenario) -> Traffic:
    """The traffic that a scenario describes, devices drawn evenly."""
    classes = tuple(
        TaskClass(size, scenario.budget_s(size), float(share))
        for size, share in zip(scenario.sizes.values, scenario.sizes.probabilities(), strict=True)
        if share > 0
    )
    horizon_s = max(task_class.budget_s for task_class in classes)
    gaps_s, gap_share = gap_distribution(scenario.arrivals, scenario.slot_s, horizon_s)
    slotted = isinstance(scenario.arrivals, Bernoulli | Bursty)
    even = (1.0 / scenario.devices,) * scenario.devices
    return Traffic(gaps_s, gap_share, classes, even, scenario.slot_s if slotted else None)


@singledispatch
def gap_distribution(arrivals: object, slot_s: float, horizon_s: float) -> tuple[FloatArray, FloatArray]:
    """Gaps between successive arrivals up to the horizon: (durations, probabilities), the rest lumped into the last."""
    raise TypeError(f"no gap distribution for {type(arrivals).__name__}")


@gap_distribution.register
def _(arrivals: Bernoulli, slot_s: float, horizon_s: float) -> tuple[FloatArray, FloatArray]:
    if _slots(horizon_s, slot_s) > _MAX_SLOTS:
        return gap_distribution(Poisson(rate_per_s=arrivals.probability / slot_s), slot_s, horizon_s)
    slots = np.arange(1.0, _slots(horizon_s, slot_s) + 1)
    return _lumped(slots * slot_s, arrivals.probability * (1 - arrivals.probability) ** (slots - 1))


@gap_distribution.register
def _(arrivals: Poisson, slot_s: float, horizon_s: float) -> tuple[FloatArray, FloatArray]:
    edges_s = np.linspace(0.0, horizon_s, _POISSON_ATOMS + 1)
    share = -np.diff(np.exp(-arrivals.rate_per_s * edges_s))
    return _lumped((edges_s[:-1] + edges_s[1:]) / 2, share)


@gap_distribution.register
def _(arrivals: Bursty, slot_s: float, horizon_s: float) -> tuple[FloatArray, FloatArray]:
    leave = np.array([1 / arrivals.calm_slots, 1 / arrivals.burst_slots])
    hit = np.array([arrivals.calm_probability, arrivals.burst_probability])
    move = np.array([[1 - leave[0], leave[0]], [leave[1], 1 - leave[1]]])
    # A task is met in a regime in proportion to the time spent there and the rate there.
    regime = hit / leave
    if _slots(horizon_s, slot_s) > _MAX_SLOTS:
        rate_per_s = float(regime.sum() / (1 / leave).sum()) / slot_s
        return gap_distribution(Poisson(rate_per_s=rate_per_s), slot_s, horizon_s)
    regime = regime / regime.sum()
    share = np.empty(_slots(horizon_s, slot_s))
    for slot in range(len(share)):
        regime = regime @ move
        share[slot] = regime @ hit
        regime = regime * (1 - hit)
    return _lumped(np.arange(1.0, len(share) + 1) * slot_s, share)


@gap_distribution.register
def _(arrivals: Recorded, slot_s: float, horizon_s: float) -> tuple[FloatArray, FloatArray]:
    instants_s = np.array(arrivals.instants_s)
    period_s = arrivals.period_s or float(instants_s[-1])
    gaps_s = np.diff(np.append(instants_s, period_s + instants_s[0]))
    durations_s, counts = np.unique(np.minimum(gaps_s, horizon_s), return_counts=True)
    return durations_s, counts / counts.sum()


def _slots(horizon_s: float, slot_s: float) -> int:
    return max(1, int(np.ceil(horizon_s / slot_s - 1e-9)))


def _lumped(gaps_s: FloatArray, share: FloatArray) -> tuple[FloatArray, FloatArray]:
    share = share.copy()
    share[-1] += max(0.0, 1.0 - share.sum())
    return gaps_s, share
