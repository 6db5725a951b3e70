"""The recursion under `network`, compiled: states are how far the own device, its link and the edge are behind.

The arithmetic is that of `offramp.equations`, compiled as it stands. Tables are (points, points, edge points). The
edge's backlog is the work that has been sent its way, shared by its workers: it runs down from the decision on, so
what is still on a link counts as if it were there. That is all the recursion simplifies; the decision itself uses
the forecast that it is shown.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from offramp.equations import FloatArray, IntArray
from offramp.policies.planning.problem import INDIFFERENT, Grid, Options, Terms
from offramp.policies.planning.shared_kernels import Array, cell, network_arrival, offloaded_finish, on_time
from offramp.solvers.compiled import compiled, compiled_apart


@compiled
def _read_plane(table: FloatArray, row: int, above_row: float, column: int, above_column: float) -> float:
    near: float = table[row, column] * (1.0 - above_column) + table[row, column + 1] * above_column
    far: float = table[row + 1, column] * (1.0 - above_column) + table[row + 1, column + 1] * above_column
    return near * (1.0 - above_row) + far * above_row


@compiled
def _read(table: FloatArray, device: int, link: int, edge: int, above: tuple[float, float, float]) -> float:
    near = _read_plane(table[device], link, above[1], edge, above[2])
    far = _read_plane(table[device + 1], link, above[1], edge, above[2])
    value: float = near * (1.0 - above[0]) + far * above[0]
    return value


@compiled
def _read_at(table: FloatArray, grid: Grid, device_s: float, link_s: float, edge_s: float) -> float:
    device, above_device = cell(device_s, grid.step_s, table.shape[0])
    link, above_link = cell(link_s, grid.step_s, table.shape[1])
    edge, above_edge = cell(edge_s, grid.edge_step_s, table.shape[2])
    value: float = _read(table, device, link, edge, (above_device, above_link, above_edge))
    return value


@compiled
def edge_start(arrival_s: float, edge_arrivals_s: FloatArray, edge_free_s: FloatArray) -> float:
    """When the edge starts what reaches it at an instant: behind the jobs forecast to reach it by then."""
    ahead = np.searchsorted(edge_arrivals_s, arrival_s, side="right")
    start_s: float = max(arrival_s, edge_free_s[ahead])
    return start_s


class Situation(NamedTuple):
    """Where a decision finds the system. Every instant counts from the decision.

    Attributes:
        ready_s, budget_s: when the device hears of the decision, and the task's deadline.
        device_s, link_s: when the device and its link are free.
        edge_work_s: what the edge has to do for each of its workers.
        edge_arrivals_s, edge_free_s: the edge's forecast, as in `Backlog`.
    """

    ready_s: float
    budget_s: float
    device_s: float
    link_s: float
    edge_work_s: float
    edge_arrivals_s: FloatArray
    edge_free_s: FloatArray


@compiled
def _finish(
    options: Options, option: int, terms: Terms, found: Situation
) -> tuple[float, float, float, float]:
    """(finish, device free, link free, the edge's work for each worker) after an option."""
    _, send_s, sent_s, arrival_s = network_arrival(
        found.ready_s,
        found.device_s,
        found.link_s,
        terms.link_delay_s,
        options.head_s[option],
        options.upload_s[option],
    )
    if options.local[option]:
        return send_s, send_s, found.link_s, found.edge_work_s
    start_s = edge_start(arrival_s, found.edge_arrivals_s, found.edge_free_s)
    tail_s = options.tail_s[option]
    finish_s = offloaded_finish(start_s, tail_s, terms.answer_s)
    return finish_s, send_s, sent_s, found.edge_work_s + tail_s / terms.edge_workers


@compiled
def best_option(
    after: FloatArray, grid: Grid, terms: Terms, found: Situation, options: Options, first: int, last: int
) -> int:
    """The option first..last-1 that is on time with the greatest gain plus value after it; -1 to drop."""
    best = -1
    best_value = _read_at(after, grid, found.device_s, found.link_s, found.edge_work_s)
    for option in range(first, last):
        finish_s, device_s, link_s, work_s = _finish(options, option, terms, found)
        if not on_time(finish_s, found.budget_s):
            continue
        value = options.gain[option] + _read_at(after, grid, device_s, link_s, work_s)
        if value > best_value:
            best, best_value = option, value
    return best


@compiled
def prompt_option(after: FloatArray, grid: Grid, terms: Terms, found: Situation, options: Options) -> int:
    """The option that finishes first among those that earn what `best_option`'s does and are as good, nearly.

    Tasks to come may reach the edge before this one: time to spare is worth `INDIFFERENT` of value.
    """
    best = best_option(after, grid, terms, found, options, 0, len(options.gain))
    if best < 0:
        return best
    chosen = best
    least = 0.0
    first_s = np.inf
    # The best one comes first, and sets what the others must be worth.
    for turn in range(-1, len(options.gain)):
        option = best if turn < 0 else turn
        finish_s, device_s, link_s, work_s = _finish(options, option, terms, found)
        value = options.gain[option] + _read_at(after, grid, device_s, link_s, work_s)
        if turn < 0:
            least = value - INDIFFERENT
        if options.gain[option] >= options.gain[best] and value >= least and finish_s < first_s:
            chosen, first_s = option, finish_s
    return chosen


@compiled
def edge_work(now_s: float, edge_arrivals_s: FloatArray, edge_free_s: FloatArray) -> float:
    """Seconds of work for each worker that the forecast of `Backlog` holds."""
    work_s: float = max(0.0, edge_free_s[0] - now_s)
    for job in range(len(edge_arrivals_s)):
        begun_s = max(edge_free_s[job], edge_arrivals_s[job], now_s)
        work_s += max(0.0, edge_free_s[job + 1] - begun_s)
    return work_s


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
    nothing = np.empty(0)
    edge_free_s = np.empty(1)
    for device in range(after.shape[0]):
        for link in range(after.shape[1]):
            for edge in range(after.shape[2]):
                edge_free_s[0] = edge * grid.edge_step_s
                for number in range(len(budget_s)):
                    found = Situation(
                        terms.decision_s,
                        budget_s[number],
                        device * grid.step_s,
                        link * grid.step_s,
                        edge * grid.edge_step_s,
                        nothing,
                        edge_free_s,
                    )
                    first, last = options.start[number], options.start[number + 1]
                    option = best_option(after, grid, terms, found, options, first, last)
                    device_s, link_s, work_s = found.device_s, found.link_s, found.edge_work_s
                    earned = 0.0
                    if option >= 0:
                        _, device_s, link_s, work_s = _finish(options, option, terms, found)
                        earned = options.gain[option]
                    here = place[device, link, edge, number]
                    part = above[device, link, edge, number]
                    here[0], part[0] = cell(device_s, grid.step_s, after.shape[0])
                    here[1], part[1] = cell(link_s, grid.step_s, after.shape[1])
                    here[2], part[2] = cell(work_s, grid.edge_step_s, after.shape[2])
                    reward[device, link, edge, number] = earned


@compiled_apart
def own_value(
    after: FloatArray, share: FloatArray, place: Array, above: Array, reward: Array, out: FloatArray
) -> None:
    """Expected gain plus value of an arrival at the tracked device, under the stored choices."""
    for device in range(after.shape[0]):
        for link in range(after.shape[1]):
            for edge in range(after.shape[2]):
                total = 0.0
                for number in range(len(share)):
                    here = place[device, link, edge, number]
                    part = above[device, link, edge, number]
                    total += share[number] * (
                        reward[device, link, edge, number]
                        + _read(after, here[0], here[1], here[2], (part[0], part[1], part[2]))
                    )
                out[device, link, edge] = total


@compiled_apart
def until_next(
    before: FloatArray, grid: Grid, gap_steps: IntArray, gap_share: FloatArray, after: FloatArray
) -> None:
    """Value after a decision from the value at the next arrival, all backlogs having run down meanwhile."""
    after[:] = 0.0
    last = max(before.shape[0], before.shape[1]) - 1
    left = 1.0
    for index in range(len(gap_steps)):
        gap, share = gap_steps[index], gap_share[index]
        if gap >= last and gap * grid.step_s >= (before.shape[2] - 1) * grid.edge_step_s:
            break
        left -= share
        for edge in range(before.shape[2]):
            low, above = cell(edge * grid.edge_step_s - gap * grid.step_s, grid.edge_step_s, before.shape[2])
            for device in range(before.shape[0]):
                for link in range(before.shape[1]):
                    row = before[max(device - gap, 0), max(link - gap, 0)]
                    after[device, link, edge] += share * (row[low] * (1.0 - above) + row[low + 1] * above)
    after += left * before[0, 0, 0]


@compiled_apart
def spread(
    now: FloatArray,
    own_share: float,
    share: FloatArray,
    place: Array,
    above: Array,
    moved: FloatArray,
    later: FloatArray,
) -> None:
    """Carry a distribution over states through one arrival: own tasks by choice; `moved` is the others' part."""
    later[:] = moved
    for device in range(now.shape[0]):
        for link in range(now.shape[1]):
            for edge in range(now.shape[2]):
                mass = now[device, link, edge] * own_share
                if mass < 1e-12:
                    continue
                for number in range(len(share)):
                    here = place[device, link, edge, number]
                    part = above[device, link, edge, number]
                    for corner in range(8):
                        weight = mass * share[number]
                        weight *= part[0] if corner & 1 else 1.0 - part[0]
                        weight *= part[1] if corner & 2 else 1.0 - part[1]
                        weight *= part[2] if corner & 4 else 1.0 - part[2]
                        if weight > 0.0:
                            later[
                                here[0] + (corner & 1),
                                here[1] + ((corner >> 1) & 1),
                                here[2] + ((corner >> 2) & 1),
                            ] += weight


@compiled_apart
def run_down(
    later: FloatArray, grid: Grid, gap_steps: IntArray, gap_share: FloatArray, now: FloatArray
) -> None:
    """Carry a distribution over states from a decision to the next arrival."""
    now[:] = 0.0
    last = max(later.shape[0], later.shape[1]) - 1
    for device in range(later.shape[0]):
        for link in range(later.shape[1]):
            for edge in range(later.shape[2]):
                mass = later[device, link, edge]
                if mass < 1e-12:
                    continue
                left = mass
                for index in range(len(gap_steps)):
                    gap = gap_steps[index]
                    if gap >= last and gap * grid.step_s >= edge * grid.edge_step_s:
                        break
                    part = mass * gap_share[index]
                    left -= part
                    low, above = cell(
                        edge * grid.edge_step_s - gap * grid.step_s, grid.edge_step_s, later.shape[2]
                    )
                    row = now[max(device - gap, 0), max(link - gap, 0)]
                    row[low] += part * (1.0 - above)
                    row[low + 1] += part * above
                now[0, 0, 0] += left
