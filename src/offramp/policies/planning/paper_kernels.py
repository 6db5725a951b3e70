"""The recursion under `paper`, compiled: states are how far the own device and the edge are behind.

The arithmetic is that of `offramp.equations`, compiled as it stands. Tables are (points, points): device first, edge
second, at multiples of one step. A device is never further behind than the edge, because its task ends on the edge
after it; entries with device > edge are not used.
"""

from __future__ import annotations

import numpy as np

from offramp.equations import FloatArray, IntArray
from offramp.policies.planning.problem import Grid, Options, Terms
from offramp.policies.planning.shared_kernels import Array, cell, on_time, paper_timeline
from offramp.solvers.compiled import compiled, compiled_apart


@compiled
def _read(table: Array, row: int, above_row: float, column: int, above_column: float) -> float:
    near: float = table[row, column] * (1.0 - above_column) + table[row, column + 1] * above_column
    far: float = table[row + 1, column] * (1.0 - above_column) + table[row + 1, column + 1] * above_column
    return near * (1.0 - above_row) + far * above_row


@compiled
def best_option(
    after: FloatArray,
    grid: Grid,
    device_s: float,
    edge_s: float,
    budget_s: float,
    options: Options,
    first: int,
    last: int,
) -> int:
    """The option first..last-1 that is on time with the greatest gain plus value after it; -1 to drop.

    Backlogs and budget count from the instant of the decision.
    """
    points = after.shape[0]
    row, above_row = cell(device_s, grid.step_s, points)
    column, above_column = cell(edge_s, grid.step_s, points)
    best = -1
    best_value = _read(after, row, above_row, column, above_column)
    for option in range(first, last):
        line = paper_timeline(
            0.0, device_s, edge_s, options.head_s[option], options.upload_s[option], options.tail_s[option]
        )
        if not on_time(line.finish_s, budget_s):
            continue
        row, above_row = cell(line.send_s, grid.step_s, points)
        column, above_column = cell(line.finish_s, grid.step_s, points)
        value = options.gain[option] + _read(after, row, above_row, column, above_column)
        if value > best_value:
            best, best_value = option, value
    return best


@compiled_apart
def improve(
    after: FloatArray,
    grid: Grid,
    terms: Terms,
    options: Options,
    budget_s: FloatArray,
    place: Array,
    above: Array,
    reward: Array,
) -> None:
    """For every state and class the best option: where it leads (`place`, `above`) and what it earns."""
    points = after.shape[0]
    for device in range(points):
        for edge in range(device, points):
            for number in range(len(budget_s)):
                send_s, finish_s, earned = device * grid.step_s, edge * grid.step_s, 0.0
                option = best_option(
                    after,
                    grid,
                    send_s,
                    finish_s,
                    budget_s[number],
                    options,
                    options.start[number],
                    options.start[number + 1],
                )
                if option >= 0:
                    line = paper_timeline(
                        0.0,
                        send_s,
                        finish_s,
                        options.head_s[option],
                        options.upload_s[option],
                        options.tail_s[option],
                    )
                    send_s, finish_s, earned = line.send_s, line.finish_s, options.gain[option]
                row, above_row = cell(send_s, grid.step_s, points)
                column, above_column = cell(finish_s, grid.step_s, points)
                place[device, edge, number, 0] = row
                place[device, edge, number, 1] = column
                above[device, edge, number, 0] = above_row
                above[device, edge, number, 1] = above_column
                reward[device, edge, number] = earned


@compiled_apart
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


@compiled_apart
def until_next(
    before: FloatArray, grid: Grid, gap_steps: IntArray, gap_share: FloatArray, after: FloatArray
) -> None:
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


@compiled_apart
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


@compiled_apart
def run_down(
    later: FloatArray, grid: Grid, gap_steps: IntArray, gap_share: FloatArray, now: FloatArray
) -> None:
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
