"""The planner's recursion, compiled. The arithmetic is that of `offramp.equations`, compiled as it stands.

Importing this module loads numba. Tables are (points, points) arrays over the backlog of the own device (first
axis) and of the edge (second axis) at multiples of a step. Under `paper` a device is never further behind than
the edge, because its task ends on the edge after it; entries with device > edge are not used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from offramp import equations

Array = np.ndarray[Any, Any]

# Typed as they are called here: numba compiles for scalars what NumPy takes as arrays.
_paper_timeline: Any = njit(cache=True)(equations.paper_timeline)
_on_time: Any = njit(cache=True)(equations.on_time)


@njit(cache=True, nogil=True)
def _cell(instant_s: float, step_s: float, points: int) -> tuple[int, float]:
    """Grid point at or below an instant, and the fraction of a step above it."""
    place = min(max(instant_s / step_s, 0.0), points - 1.0)
    base = min(int(place), points - 2)
    return base, place - base


@njit(cache=True, nogil=True)
def _read(table: Array, row: int, above_row: float, column: int, above_column: float) -> float:
    near: float = table[row, column] * (1.0 - above_column) + table[row, column + 1] * above_column
    far: float = table[row + 1, column] * (1.0 - above_column) + table[row + 1, column + 1] * above_column
    return near * (1.0 - above_row) + far * above_row


@njit(cache=True, nogil=True)
def best_option(
    after: Array,
    step_s: float,
    device_s: float,
    edge_s: float,
    budget_s: float,
    head_s: Array,
    upload_s: Array,
    tail_s: Array,
    gain: Array,
    first: int,
    last: int,
) -> int:
    """The option first..last-1 that is on time with the greatest gain plus value after it; -1 to drop.

    Backlogs and budget count from the instant of the decision.
    """
    points = after.shape[0]
    row, above_row = _cell(device_s, step_s, points)
    column, above_column = _cell(edge_s, step_s, points)
    best = -1
    best_value = _read(after, row, above_row, column, above_column)
    for option in range(first, last):
        line = _paper_timeline(0.0, device_s, edge_s, head_s[option], upload_s[option], tail_s[option])
        if not _on_time(line.finish_s, budget_s):
            continue
        row, above_row = _cell(line.send_s, step_s, points)
        column, above_column = _cell(line.finish_s, step_s, points)
        value = gain[option] + _read(after, row, above_row, column, above_column)
        if value > best_value:
            best, best_value = option, value
    return best


@njit(cache=True, nogil=True)
def improve(
    after: Array,
    step_s: float,
    start: Array,
    budget_s: Array,
    head_s: Array,
    upload_s: Array,
    tail_s: Array,
    gain: Array,
    place: Array,
    above: Array,
    reward: Array,
) -> None:
    """For every state and class the best option: where it leads (`place`, `above`) and what it earns."""
    points = after.shape[0]
    for device in range(points):
        for edge in range(device, points):
            for number in range(len(budget_s)):
                option = best_option(
                    after,
                    step_s,
                    device * step_s,
                    edge * step_s,
                    budget_s[number],
                    head_s,
                    upload_s,
                    tail_s,
                    gain,
                    start[number],
                    start[number + 1],
                )
                send_s, finish_s, earned = device * step_s, edge * step_s, 0.0
                if option >= 0:
                    line = _paper_timeline(
                        0.0, send_s, finish_s, head_s[option], upload_s[option], tail_s[option]
                    )
                    send_s, finish_s, earned = line.send_s, line.finish_s, gain[option]
                row, above_row = _cell(send_s, step_s, points)
                column, above_column = _cell(finish_s, step_s, points)
                place[device, edge, number, 0] = row
                place[device, edge, number, 1] = column
                above[device, edge, number, 0] = above_row
                above[device, edge, number, 1] = above_column
                reward[device, edge, number] = earned


@njit(cache=True, nogil=True)
def own_value(after: Array, share: Array, place: Array, above: Array, reward: Array, out: Array) -> None:
    """Expected gain plus value of an arrival at the tracked device, under the stored choices."""
    points = after.shape[0]
    for device in range(points):
        for edge in range(device, points):
            total = 0.0
            for number in range(len(share)):
                total += share[number] * (
                    reward[device, edge, number]
                    + _read(
                        after,
                        place[device, edge, number, 0],
                        above[device, edge, number, 0],
                        place[device, edge, number, 1],
                        above[device, edge, number, 1],
                    )
                )
            out[device, edge] = total


@njit(cache=True, nogil=True)
def others_value(after: Array, moves: Array, earned: Array, own: float, before: Array) -> None:
    """Turn the value of an own arrival into that of any: `own` is the share of the tracked device's tasks."""
    points = after.shape[0]
    for device in range(points):
        for edge in range(device, points):
            total = earned[edge]
            for later in range(edge, points):
                total += moves[edge, later] * after[device, later]
            before[device, edge] = own * before[device, edge] + total


@njit(cache=True, nogil=True)
def others_spread(now: Array, moves: Array, moved: Array) -> None:
    """Carry a distribution over states through arrivals at other devices."""
    points = now.shape[0]
    moved[:] = 0.0
    for device in range(points):
        for edge in range(device, points):
            mass = now[device, edge]
            if mass < 1e-12:
                continue
            for later in range(edge, points):
                moved[device, later] += mass * moves[edge, later]


@njit(cache=True, nogil=True)
def until_next(before: Array, gap_steps: Array, gap_share: Array, after: Array) -> None:
    """Value after a decision from the value at the next arrival, both backlogs having run down meanwhile."""
    points = before.shape[0]
    tail = np.zeros(points + 1)
    for index in range(len(gap_steps)):
        tail[min(gap_steps[index], points)] += gap_share[index]
    for device in range(points):
        for edge in range(device, points):
            total = 0.0
            left = 1.0
            for gap in range(edge):
                if tail[gap] > 0.0:
                    total += tail[gap] * before[max(device - gap, 0), edge - gap]
                    left -= tail[gap]
            after[device, edge] = total + left * before[0, 0]
    # Interpolation between device and edge just above the diagonal reads one point below it: continue the plane.
    for edge in range(points - 1):
        after[edge + 1, edge] = after[edge, edge] + after[edge + 1, edge + 1] - after[edge, edge + 1]


@njit(cache=True, nogil=True)
def others_moves(
    behind: Array, share: Array, place: Array, above: Array, reward: Array, moves: Array, earned: Array
) -> None:
    """Where an arrival at some other device takes the edge, and what it earns, for every edge backlog.

    `behind` (points, points) is the distribution of that device's backlog for each backlog of the edge. Adds into
    `moves` (points, points) and `earned` (points,).
    """
    points = behind.shape[0]
    for edge in range(points):
        for device in range(edge + 1):
            weight = behind[device, edge]
            if weight < 1e-9:
                continue
            for number in range(len(share)):
                part = weight * share[number]
                column = place[device, edge, number, 1]
                above_column = above[device, edge, number, 1]
                moves[edge, column] += part * (1.0 - above_column)
                moves[edge, column + 1] += part * above_column
                earned[edge] += part * reward[device, edge, number]


@njit(cache=True, nogil=True)
def spread(
    now: Array, own: float, share: Array, place: Array, above: Array, moved: Array, later: Array
) -> None:
    """Carry a distribution over states through one arrival: own tasks by choice; `moved` is the others' part."""
    points = now.shape[0]
    later[:] = moved
    for device in range(points):
        for edge in range(device, points):
            mass = now[device, edge] * own
            if mass < 1e-12:
                continue
            for number in range(len(share)):
                row = place[device, edge, number, 0]
                column = place[device, edge, number, 1]
                above_row = above[device, edge, number, 0]
                above_column = above[device, edge, number, 1]
                part = mass * share[number]
                later[row, column] += part * (1.0 - above_row) * (1.0 - above_column)
                later[row, column + 1] += part * (1.0 - above_row) * above_column
                later[row + 1, column] += part * above_row * (1.0 - above_column)
                later[row + 1, column + 1] += part * above_row * above_column


@njit(cache=True, nogil=True)
def run_down(later: Array, gap_steps: Array, gap_share: Array, now: Array) -> None:
    """Carry a distribution over states from a decision to the next arrival."""
    points = later.shape[0]
    now[:] = 0.0
    for device in range(points):
        for edge in range(points):
            mass = later[device, edge]
            if mass < 1e-12:
                continue
            left = mass
            for index in range(len(gap_steps)):
                gap = gap_steps[index]
                if gap >= edge:
                    break
                part = mass * gap_share[index]
                now[min(max(device - gap, 0), edge - gap), edge - gap] += part
                left -= part
            now[0, 0] += left
