"""Tasks as arrays that compiled code walks: every option that can meet its deadline, and who follows whom."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from offramp.equations import TIME_TOLERANCE_S, FloatArray, IntArray
from offramp.options import OptionTable, System
from offramp.solvers.compiled import compiled
from offramp.task import Task


class FlatTasks(NamedTuple):
    """Tasks that some option serves in time (M of them) and those options (O), as arrays.

    Instants and durations in seconds, gains in whole units.

    Attributes:
        arrival_s, deadline_s, device: (M,) of the tasks, in order of arrival.
        first, last: (M,) the task's options are rows first..last-1 of the option arrays.
        head_s, upload_s, tail_s, units: (O,) of the options that no other option of the task beats.
        row: (O,) row of the option in its `OptionTable`.
        best_units: (M,) units of the best option.
        reach_s: (M,) least head + upload.
        latest_start_s: (M,) the device must be free by then for any option to be on time.
        latest_edge_s: (M,) the same for the edge.
        edge_floor_s: (M + 1,) no task from this one on needs the edge before; inf past the last.
        next_same: (M,) the device's next task, M if there is none.
        first_on: (N,) each device's first task, M if there is none.
    """

    arrival_s: FloatArray
    deadline_s: FloatArray
    device: IntArray
    first: IntArray
    last: IntArray
    head_s: FloatArray
    upload_s: FloatArray
    tail_s: FloatArray
    units: IntArray
    row: IntArray
    best_units: IntArray
    reach_s: FloatArray
    latest_start_s: FloatArray
    latest_edge_s: FloatArray
    edge_floor_s: FloatArray
    next_same: IntArray
    first_on: IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Flattened:
    """Flat tasks and the way back: `units_per_gain` units are a gain of 1.

    Attributes:
        index: (M,) place of each flat task among all tasks.
        tables, table_of: the option tables there are, and which of them is each of all tasks'.
    """

    tasks: FlatTasks
    units_per_gain: float
    index: IntArray
    tables: tuple[OptionTable, ...]
    table_of: IntArray

    def rows(self, options: IntArray) -> IntArray:
        """Rows of the tables for all tasks, -1 to drop, from an option of the flat arrays or -1 for each flat task."""
        rows = np.full(len(self.table_of), -1, dtype=np.int64)
        if len(options):
            rows[self.index] = np.where(options < 0, -1, self.tasks.row[options])
        return rows


def flatten(system: System, tasks: Sequence[Task]) -> Flattened:
    """Flatten tasks in order of arrival.

    Gains become whole numbers of units, so that sums do not depend on their order and equal gains are equal. A unit
    is about 2⁻⁶¹ of the greatest possible sum: rounding costs less than a sum of floats does.
    """
    # Tasks of one kind of device, size and budget share their options.
    groups: dict[tuple[tuple[float, float], int, float], int] = {}
    tables: list[OptionTable] = []
    every_group = np.empty(len(tasks), dtype=np.int64)
    for n, task in enumerate(tasks):
        key = (system.kind(task.device), task.size, task.budget_s)
        if key not in groups:
            groups[key] = len(tables)
            tables.append(system.options(task.device, task.size))
        every_group[n] = groups[key]
    greatest = max(float(table.gain.max()) for table in tables) * len(tasks)
    units_per_gain = 2.0 ** math.floor(61 - math.log2(max(greatest, 1.0)))
    ends = np.cumsum([len(table) for table in tables])
    head_s, upload_s, tail_s = (
        np.concatenate([getattr(table, name) for table in tables])
        for name in ("head_s", "upload_s", "tail_s")
    )
    units = np.concatenate([np.rint(table.gain * units_per_gain) for table in tables]).astype(np.int64)
    begins = np.concatenate((np.zeros(1, dtype=np.int64), ends[:-1]))
    budgets_s = np.array([key[2] for key in groups])
    useful = _useful(budgets_s + 2 * TIME_TOLERANCE_S, begins, ends, head_s, upload_s, tail_s, units)
    rows, first, last, best_units, reach_s, start_room_s, edge_room_s = useful
    served = np.flatnonzero((last > first)[every_group])
    group = every_group[served]
    arrival_s = np.array([task.arrival_s for task in tasks])[served]
    device = np.array([task.device for task in tasks], dtype=np.int64)[served]
    next_same, first_on = _followers(device, system.devices)
    reaches_s = np.append(arrival_s + reach_s[group], np.inf)
    flat = FlatTasks(
        arrival_s=arrival_s,
        deadline_s=np.array([task.deadline_s for task in tasks])[served],
        device=device,
        first=first[group],
        last=last[group],
        head_s=head_s[rows],
        upload_s=upload_s[rows],
        tail_s=tail_s[rows],
        units=units[rows],
        row=rows - np.repeat(begins, last - first),
        best_units=best_units[group],
        reach_s=reach_s[group],
        latest_start_s=arrival_s + start_room_s[group],
        latest_edge_s=arrival_s + edge_room_s[group],
        edge_floor_s=np.minimum.accumulate(reaches_s[::-1])[::-1].copy(),
        next_same=next_same,
        first_on=first_on,
    )
    return Flattened(flat, units_per_gain, served, tuple(tables), every_group)


def _followers(device: IntArray, devices: int) -> tuple[IntArray, IntArray]:
    """The next task on each task's device, and the first on each device; the number of tasks where there is none."""
    next_same = np.full(len(device), len(device), dtype=np.int64)
    first_on = np.full(devices, len(device), dtype=np.int64)
    for owner in range(devices):
        mine = np.flatnonzero(device == owner)
        if len(mine):
            first_on[owner] = mine[0]
            next_same[mine[:-1]] = mine[1:]
    return next_same, first_on


@compiled
def _useful(
    limit_s: FloatArray,
    begins: IntArray,
    ends: IntArray,
    head_s: FloatArray,
    upload_s: FloatArray,
    tail_s: FloatArray,
    units: IntArray,
) -> tuple[IntArray, IntArray, IntArray, IntArray, FloatArray, FloatArray, FloatArray]:
    """For each group of options the rows worth trying, and what the best of them earns and needs."""
    groups = len(limit_s)
    rows = np.empty(len(head_s), dtype=np.int64)
    first = np.zeros(groups, dtype=np.int64)
    last = np.zeros(groups, dtype=np.int64)
    best_units = np.zeros(groups, dtype=np.int64)
    reach_s = np.full(groups, np.inf)
    start_room_s = np.full(groups, -np.inf)
    edge_room_s = np.full(groups, -np.inf)
    kept = 0
    for g in range(groups):
        first[g] = kept
        for option in range(begins[g], ends[g]):
            total_s = head_s[option] + upload_s[option] + tail_s[option]
            if total_s > limit_s[g] or _beaten(option, begins[g], ends[g], head_s, upload_s, tail_s, units):
                continue
            rows[kept] = option
            kept += 1
            best_units[g] = max(best_units[g], units[option])
            reach_s[g] = min(reach_s[g], head_s[option] + upload_s[option])
            start_room_s[g] = max(start_room_s[g], limit_s[g] - total_s)
            edge_room_s[g] = max(edge_room_s[g], limit_s[g] - tail_s[option])
        last[g] = kept
    return rows[:kept].copy(), first, last, best_units, reach_s, start_room_s, edge_room_s


@compiled
def _beaten(
    option: int,
    begin: int,
    end: int,
    head_s: FloatArray,
    upload_s: FloatArray,
    tail_s: FloatArray,
    units: IntArray,
) -> bool:
    """Whether another option frees the device no later, finishes no later in any backlog and earns no less.

    finish = max(start + head + upload, edge free) + tail grows with head + upload + tail and with tail, so these
    two and head decide. Of equal options the first stays.
    """
    total_s = head_s[option] + upload_s[option] + tail_s[option]
    for other in range(begin, end):
        other_s = head_s[other] + upload_s[other] + tail_s[other]
        if (
            other != option
            and head_s[other] <= head_s[option]
            and tail_s[other] <= tail_s[option]
            and other_s <= total_s
            and units[other] >= units[option]
            and (
                other < option
                or head_s[other] < head_s[option]
                or tail_s[other] < tail_s[option]
                or other_s < total_s
                or units[other] > units[option]
            )
        ):
            return True
    return False
