"""How a device ends tasks without its edge: in time first, then as deep as what waits and what is to come allow.

A deeper exit keeps the processor from the tasks behind it, and one that is missed costs about ten times what depth can
earn (Eq. 1). So each exit is held against samples of the future: the device's own recent stream, played on behind it
with the quickest exit for every task.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from offramp.equations import FloatArray, IntArray, on_time

HISTORY = 64
"""Tasks of the recent stream that are remembered."""
FUTURES, AHEAD = 16, 8
"""How many samples of the future are played, and how many tasks of each."""

CARE = 3.0
"""How many times its gain a task counts that is missed for another's depth: alone, in time comes first."""
ALONE = (0.95, 0.15)
"""Share of the computations alone whose lateness the exits chosen there leave room for, and the lateness at first."""


@dataclass(frozen=True, slots=True)
class Alone:
    """The options of a task that need no edge: their rows, the seconds that they take from here on, and their gain."""

    rows: IntArray
    takes_s: FloatArray
    gain: FloatArray

    @property
    def quickest(self) -> Quickest:
        """The one that takes least; among equals the one that earns most."""
        first = int(np.lexsort((-self.gain, self.takes_s))[0])
        return Quickest(first, int(self.rows[first]), float(self.takes_s[first]), float(self.gain[first]))


class Quickest(NamedTuple):
    """One of the ways: its place among them, its row in the options, its seconds and its gain."""

    place: int
    row: int
    takes_s: float
    gain: float


@dataclass(frozen=True, slots=True)
class Claim:
    """What a task asks of the processor: seconds at least, by when, and what it earns then."""

    takes_s: float
    deadline_s: float
    gain: float


class Outlook:
    """The recent stream of a device as a sample of what comes next."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float, float, float]] = deque(maxlen=HISTORY)
        self._last_s: float | None = None

    def arrived(self, arrival_s: float, budget_s: float, takes_s: float, gain: float) -> None:
        """A task has arrived, which takes at least `takes_s` and then earns `gain`."""
        if self._last_s is not None:
            self._seen.append((arrival_s - self._last_s, budget_s, takes_s, gain))
        self._last_s = arrival_s

    def choose(
        self,
        ways: Alone,
        planned_s: FloatArray,
        deadline_s: float,
        waiting: Sequence[Claim],
        now_s: float,
    ) -> int | None:
        """Index of the way to end a task that begins now: what earns most, less `CARE` times what is lost behind it.

        Ways are planned to take `planned_s`. If none of them is in time, the quickest counts if it is in time as it is;
        None if it is not. `waiting`: see `losses`.
        """
        ends_s = now_s + planned_s
        in_time = np.asarray(on_time(ends_s, deadline_s))
        if not in_time.any():
            quickest = ways.quickest
            return quickest.place if on_time(now_s + quickest.takes_s, deadline_s) else None
        worth = ways.gain - CARE * self.losses(ends_s, waiting, now_s)
        return int(np.argmax(np.where(in_time, worth, -np.inf)))

    def losses(self, free_s: FloatArray, waiting: Sequence[Claim], now_s: float) -> FloatArray:
        """Gain that is expected to be lost of the tasks behind if the processor is free at each of `free_s`.

        Those that wait come first, in order, then those that may arrive from now on.
        """
        seen = np.array(self._seen, dtype=np.float64).reshape(-1, 4)
        futures = min(FUTURES, len(seen))
        free = np.repeat(np.asarray(free_s, np.float64)[:, None], max(futures, 1), axis=1)
        lost = np.zeros_like(free)
        for claim in waiting:
            free = _serve(free, lost, free, claim.takes_s, claim.deadline_s, claim.gain)
        if futures:
            first = np.arange(futures) * len(seen) // futures
            samples = seen[(first[:, None] + np.arange(AHEAD)) % len(seen)]
            arrivals_s = now_s + np.cumsum(samples[:, :, 0], axis=1)
            for number in range(AHEAD):
                arrival_s = arrivals_s[:, number]
                _, budget_s, takes_s, gain = samples[:, number].T
                free = _serve(free, lost, np.maximum(free, arrival_s), takes_s, arrival_s + budget_s, gain)
        mean: FloatArray = lost.mean(axis=1)
        return mean


def _serve(
    free_s: FloatArray,
    lost: FloatArray,
    start_s: FloatArray,
    takes_s: FloatArray | float,
    deadline_s: FloatArray | float,
    gain: FloatArray | float,
) -> FloatArray:
    """When the processor is free after a task that is served if it can be in time; else its gain is added to `lost`."""
    finish_s = start_s + takes_s
    served = finish_s <= deadline_s
    lost += np.where(served, 0.0, gain)
    free: FloatArray = np.where(served, finish_s, free_s)
    return free
