"""Tasks by the thousand: a scenario's draws as arrays, for learners, environments and fleets that play long streams."""

from __future__ import annotations

from functools import lru_cache
from itertools import islice
from typing import NamedTuple

import numpy as np

from offramp.equations import FloatArray, IntArray
from offramp.scenario import Scenario
from offramp.streams import Bernoulli, Poisson, Sizes


class Draws(NamedTuple):
    """A stretch of a stream, arrays of one length.

    Attributes:
        gap_s: seconds since the task before; the first counts from the beginning of time.
        size: index into the scenario's `sizes.values`.
        device: 0..N-1.
    """

    gap_s: FloatArray
    size: IntArray
    device: IntArray


def draw_gaps(scenario: Scenario, count: int, rng: np.random.Generator) -> FloatArray:
    """Gaps between the arrivals of a scenario, seconds, (count,)."""
    arrivals = scenario.arrivals
    if isinstance(arrivals, Bernoulli):
        return np.asarray(rng.geometric(arrivals.probability, count) * scenario.slot_s, dtype=np.float64)
    instants = islice(arrivals.instants(scenario.slot_s, rng), count + 1)
    return np.diff(np.fromiter(instants, np.float64, count + 1))


def draw_stretch(scenario: Scenario, count: int, rng: np.random.Generator) -> Draws:
    """`count` tasks: the distribution of `instance.draw_tasks`, from other random numbers."""
    gap_s = draw_gaps(scenario, count, rng)
    size = np.searchsorted(_size_ends(scenario.sizes), rng.random(count), side="right")
    return Draws(gap_s, size.astype(np.int64), rng.integers(scenario.devices, size=count))


class Stretch(NamedTuple):
    """Successive tasks of a stream, arrays of one length: instants in seconds, indices of sizes, devices 0..N-1."""

    arrival_s: FloatArray
    size: IntArray
    device: IntArray

    def part(self, first: int, last: int | None = None) -> Stretch:
        """The tasks from `first` to before `last`."""
        return Stretch(self.arrival_s[first:last], self.size[first:last], self.device[first:last])


class TaskStream:
    """The very tasks of `instance.draw_tasks`, some thousands at a time.

    However they are taken, in stretches of whatever length, the same generator state gives the same tasks.
    """

    def __init__(self, scenario: Scenario, rng: np.random.Generator) -> None:
        self._scenario = scenario
        self._arrivals_rng, self._sizes_rng, self._devices_rng = rng.spawn(3)
        self._ends = _size_ends(scenario.sizes)
        self._slot, self._now_s = -1, 0.0
        self._instants = scenario.arrivals.instants(scenario.slot_s, self._arrivals_rng)

    def take(self, count: int) -> Stretch:
        """The next `count` tasks, arrivals ascending."""
        arrival_s = self._arrive(count)
        size = np.searchsorted(self._ends, self._sizes_rng.random(count), side="right")
        device = self._devices_rng.integers(self._scenario.devices, size=count)
        return Stretch(arrival_s, size.astype(np.int64), device)

    def _arrive(self, count: int) -> FloatArray:
        """What `instants` would give; the two usual processes without a step of Python for each task."""
        arrivals, rng = self._scenario.arrivals, self._arrivals_rng
        if isinstance(arrivals, Bernoulli):
            slots = self._slot + np.cumsum(rng.geometric(arrivals.probability, count))
            self._slot = int(slots[-1]) if count else self._slot
            return np.asarray(slots * self._scenario.slot_s, dtype=np.float64)
        if isinstance(arrivals, Poisson):
            gaps_s = rng.exponential(1.0 / arrivals.rate_per_s, count)
            # The instant so far goes in first, so that the sums round as they do one by one.
            arrival_s = np.cumsum(np.concatenate(([self._now_s], gaps_s)))
            self._now_s = float(arrival_s[-1])
            return arrival_s[1:]
        return np.fromiter(islice(self._instants, count), np.float64, count)


@lru_cache(maxsize=64)
def _size_ends(sizes: Sizes) -> FloatArray:
    """Where each size's share of [0, 1) ends."""
    ends = np.cumsum(sizes.probabilities())
    share: FloatArray = ends / ends[-1]
    return share
