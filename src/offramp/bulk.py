"""Tasks by the thousand: a scenario's draws as arrays, for learners and environments that play long streams."""

from __future__ import annotations

from functools import lru_cache
from itertools import islice
from typing import NamedTuple

import numpy as np

from offramp.equations import FloatArray, IntArray
from offramp.scenario import Scenario
from offramp.streams import Bernoulli, Sizes


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


@lru_cache(maxsize=64)
def _size_ends(sizes: Sizes) -> FloatArray:
    """Where each size's share of [0, 1) ends."""
    ends = np.cumsum(sizes.probabilities())
    share: FloatArray = ends / ends[-1]
    return share
