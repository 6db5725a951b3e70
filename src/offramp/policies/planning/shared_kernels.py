"""What the compiled recursions of both timing models share. Importing these modules loads numba."""

from __future__ import annotations

from typing import Any

import numpy as np

from offramp import equations
from offramp.equations import FloatArray
from offramp.solvers.compiled import compiled, compiled_apart
from offramp.solvers.compiled import on_time as _on_time
from offramp.solvers.compiled import paper_timeline as _paper_timeline

Array = np.ndarray[Any, Any]

# These are called with scalars here, where their types speak of arrays.
paper_timeline: Any = _paper_timeline
on_time: Any = _on_time
network_arrival: Any = compiled(equations.network_arrival)
offloaded_finish: Any = compiled(equations.offloaded_finish)


@compiled
def cell(instant_s: float, step_s: float, points: int) -> tuple[int, float]:
    """Grid point at or below an instant, and the fraction of a step above it."""
    place = min(max(instant_s / step_s, 0.0), points - 1.0)
    base = min(int(place), points - 2)
    return base, place - base


# The three below see a table as (own states, edge backlogs), whatever an own state is.


@compiled_apart
def others_moves(
    behind: FloatArray,
    share: FloatArray,
    place: Array,
    above: Array,
    reward: Array,
    moves: FloatArray,
    earned: FloatArray,
) -> None:
    """Where an arrival at some other device takes the edge, and what it earns, for every edge backlog.

    `behind` (S, E) is the distribution of that device's state for each backlog of the edge; the last entry of
    `place` and `above` (S, E, classes, axes) is the edge's. Adds into `moves` (E, E) and `earned` (E,).
    """
    for own in range(behind.shape[0]):
        for edge in range(behind.shape[1]):
            weight = behind[own, edge]
            if weight < 1e-9:
                continue
            for number in range(len(share)):
                part = weight * share[number]
                later = place[own, edge, number, -1]
                above_later = above[own, edge, number, -1]
                moves[edge, later] += part * (1.0 - above_later)
                moves[edge, later + 1] += part * above_later
                earned[edge] += part * reward[own, edge, number]


@compiled_apart
def others_value(
    after: FloatArray, moves: FloatArray, earned: FloatArray, own_share: float, before: FloatArray
) -> None:
    """Turn the value of an own arrival into that of any: `own_share` is the tracked device's share of the tasks."""
    for own in range(after.shape[0]):
        for edge in range(after.shape[1]):
            total = earned[edge]
            # An arrival never takes the edge back.
            for later in range(edge, after.shape[1]):
                total += moves[edge, later] * after[own, later]
            before[own, edge] = own_share * before[own, edge] + total


@compiled_apart
def others_spread(now: FloatArray, moves: FloatArray, moved: FloatArray) -> None:
    """Carry a distribution over states through arrivals at other devices."""
    moved[:] = 0.0
    for own in range(now.shape[0]):
        for edge in range(now.shape[1]):
            mass = now[own, edge]
            if mass < 1e-12:
                continue
            for later in range(edge, now.shape[1]):
                moved[own, later] += mass * moves[edge, later]
