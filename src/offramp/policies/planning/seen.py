"""What the tasks so far say about those to come: estimates of the traffic, and a test of whether it has changed."""

from __future__ import annotations

from collections import Counter
from math import log
from typing import NamedTuple

import numpy as np

from offramp.equations import FloatArray
from offramp.options import System
from offramp.policies.planning.traffic import TaskClass, Traffic, gap_distribution
from offramp.streams import Poisson
from offramp.task import Task

MEMORY = 256
"""Tasks that are remembered."""
_PRIOR = 8.0
"""Observations that the prior (independent arrivals, devices alike) counts for."""
_WINDOWS = (24, 48, 96)
_EVIDENCE = 7.0
"""Exponent of a Chernoff bound: an unchanged stream shows as much with probability at most 2·exp(-7)."""


class Expected(NamedTuple):
    """Moments of a traffic that the stream is held against.

    Attributes:
        gap_s, gap_spread: mean gap in seconds, gaps counted up to `longest_gap_s`, and their variance over its square.
        budget_s, budget_sd_s: mean and standard deviation of the budgets, seconds.
    """

    gap_s: float
    gap_spread: float
    longest_gap_s: float
    budget_s: float
    budget_sd_s: float


def expected_of(traffic: Traffic) -> Expected:
    """The moments of a traffic; regular streams are granted a little spread."""
    gap_s, gap_sd_s = _moments(traffic.gaps_s, traffic.gap_share)
    gap_s = max(gap_s, 1e-9)
    budgets_s = np.array([one.budget_s for one in traffic.classes])
    budget_s, budget_sd_s = _moments(budgets_s, np.array([one.share for one in traffic.classes]))
    return Expected(
        gap_s,
        max((gap_sd_s / gap_s) ** 2, 0.05),
        float(traffic.gaps_s[-1]),
        budget_s,
        max(budget_sd_s, 0.05 * budget_s),
    )


class SeenTasks:
    """The last tasks of the stream, in order of arrival."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._arrival_s = np.zeros(2 * MEMORY)
        self._size = np.zeros(2 * MEMORY, dtype=np.int64)
        self._budget_s = np.zeros(2 * MEMORY)
        self._device = np.zeros(2 * MEMORY, dtype=np.int64)
        self._end = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, task: Task) -> None:
        """Remember a task; the oldest is forgotten when there are too many."""
        if self._end == len(self._arrival_s):
            for column in (self._arrival_s, self._size, self._budget_s, self._device):
                column[:MEMORY] = column[MEMORY:]
            self._end = MEMORY
        self._arrival_s[self._end] = task.arrival_s
        self._size[self._end] = task.size
        self._budget_s[self._end] = task.budget_s
        self._device[self._end] = task.device
        self._end += 1
        self._count = min(self._count + 1, MEMORY)

    def keep_last(self, count: int) -> None:
        """Forget all but the last tasks."""
        self._count = min(self._count, count)

    def traffic(self) -> Traffic | None:
        """The traffic as it looks from here; None from fewer than two tasks, or if none has any budget."""
        recent = slice(self._end - self._count, self._end)
        classes = _classes(self._size[recent], self._budget_s[recent])
        if self._count < 2 or not classes:
            return None
        horizon_s = max(task_class.budget_s for task_class in classes)
        gaps_s, gap_share = _gaps(np.maximum(np.diff(self._arrival_s[recent]), 0.0), horizon_s)
        return Traffic(gaps_s, gap_share, classes, self._device_share(self._device[recent]), slot_s=None)

    def departs_from(self, expected: Expected) -> int | None:
        """How many of the last tasks show that the stream is not (or no longer) as expected; None if none do."""
        for window in _WINDOWS:
            if self._count <= window:
                return None
            recent = slice(self._end - window, self._end)
            gaps_s = np.minimum(
                self._arrival_s[recent] - self._arrival_s[recent.start - 1 : recent.stop - 1],
                expected.longest_gap_s,
            )
            ratio = max(float(gaps_s.sum()) / window, 1e-9) / expected.gap_s
            if window * (ratio - 1.0 - log(ratio)) / expected.gap_spread > _EVIDENCE:
                return window
            shift_s = float(self._budget_s[recent].sum()) / window - expected.budget_s
            if window * (shift_s / expected.budget_sd_s) ** 2 / 2 > _EVIDENCE:
                return window
        return None

    def _device_share(self, device: np.ndarray[tuple[int], np.dtype[np.int64]]) -> tuple[float, ...]:
        """Devices of one kind are taken to be alike: their tasks are pooled."""
        members = Counter(self._system.kind(number) for number in range(self._system.devices))
        seen = Counter(self._system.kind(int(number)) for number in device)
        total = len(device) + _PRIOR
        each = {
            kind: (seen[kind] + _PRIOR * count / self._system.devices) / total / count
            for kind, count in members.items()
        }
        return tuple(each[self._system.kind(number)] for number in range(self._system.devices))


def _classes(size: np.ndarray[tuple[int], np.dtype[np.int64]], budget_s: FloatArray) -> tuple[TaskClass, ...]:
    classes = []
    for value in np.unique(size):
        of_size = size == value
        mean_s = float(budget_s[of_size].mean())
        if mean_s > 0:
            classes.append(TaskClass(int(value), mean_s, float(of_size.mean())))
    total = sum(task_class.share for task_class in classes)
    return tuple(TaskClass(c.size, c.budget_s, c.share / total) for c in classes)


def _gaps(seen_s: FloatArray, horizon_s: float) -> tuple[FloatArray, FloatArray]:
    """The gaps seen, mixed with independent arrivals of the same rate by as much as few observations need it."""
    values_s, counts = np.unique(np.minimum(seen_s, horizon_s), return_counts=True)
    mean_s = max(float(seen_s.mean()), horizon_s * 1e-4)
    prior_s, prior_share = gap_distribution(Poisson(rate_per_s=1.0 / mean_s), 0.0, horizon_s)
    total = len(seen_s) + _PRIOR
    gaps_s = np.concatenate((values_s, prior_s))
    share = np.concatenate((counts / total, prior_share * (_PRIOR / total)))
    order = np.argsort(gaps_s, kind="stable")
    return gaps_s[order], share[order]


def _moments(values: FloatArray, share: FloatArray) -> tuple[float, float]:
    mean = float(values @ share)
    return mean, float(np.sqrt(max(0.0, float((values - mean) ** 2 @ share))))
