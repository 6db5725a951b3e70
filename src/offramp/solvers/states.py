"""States of the label method: what can matter to the tasks to come is when each device and the edge are free.

A label is such a state and the units of gain earned on the way to it. Task by task, every label drops the task or
serves it with one of its options; instants are then raised to the next one at which they can matter.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from offramp.equations import FloatArray, IntArray
from offramp.solvers.bounds import Relaxations, worth
from offramp.solvers.compiled import compiled, on_time, paper_timeline
from offramp.solvers.flat import FlatTasks

_ROUNDING = 1e-12
_EDGE_LOOKAHEAD = 12
DEAD_S = 1e6
NO_BOUND = 1 << 62


class Labels(NamedTuple):
    """Room for L labels: instants (L, N + 1) in seconds, the edge's last, units of gain (L,), place in a guide (L,)."""

    instants_s: FloatArray
    units: IntArray
    node: IntArray


class Guide(NamedTuple):
    """What a sweep that joined labels knows about the tasks to come; without rows where there was none.

    Its L labels before each task are nodes. A label of another sweep is at a node that is free no later anywhere and
    has earned no less, so it cannot add more than the node.

    Attributes:
        child: (M, L, options + 1) the node that dropping the task (0) or its option 1, 2, … leads to; -1 where the
            units that the sweep was to beat are out of reach.
        to_come_units: (M + 1, L) most units that a node can still add.
    """

    child: IntArray
    to_come_units: IntArray


class Candidates(NamedTuple):
    """Scratch for the labels one task gives rise to, C = L · (options + 1) rows.

    `bound` is an upper bound on the units at the end; `rank` orders candidates, a dominating one after those that it
    dominates; `went` is the label that a candidate became or gave way to.
    """

    instants_s: FloatArray
    units: IntArray
    bound: IntArray
    rank: FloatArray
    parent: IntArray
    option: IntArray
    node: IntArray
    went: IntArray


@compiled
def _device_instant(tasks: FlatTasks, task: int, free_s: float, edge_free_s: float) -> float:
    """Raise when a device is free to the next instant that matters; `task` is the next on it; inf if none does."""
    count = len(tasks.arrival_s)
    while task < count and (free_s > tasks.latest_start_s[task] or edge_free_s > tasks.latest_edge_s[task]):
        task = tasks.next_same[task]
    return max(free_s, float(tasks.arrival_s[task])) if task < count else np.inf


@compiled
def _edge_instant(tasks: FlatTasks, task: int, instants_s: FloatArray) -> float:
    """Raise when the edge is free to the first instant at which a task from `task` on can reach it."""
    floor_s: float = np.inf
    end = min(task + _EDGE_LOOKAHEAD, len(tasks.arrival_s))
    while task < end and tasks.arrival_s[task] < floor_s:
        start_s = max(tasks.arrival_s[task], instants_s[tasks.device[task]])
        floor_s = min(floor_s, start_s + tasks.reach_s[task])
        task += 1
    floor_s = min(floor_s, tasks.edge_floor_s[task])
    return max(float(instants_s[-1]), floor_s - _ROUNDING * (1.0 + abs(floor_s)))


@compiled
def settle_label(tasks: FlatTasks, task: int, next_on: IntArray, instants_s: FloatArray) -> None:
    """Raise every instant of a label that has yet to meet `task` and all later ones."""
    devices = len(next_on)
    for device in range(devices):
        instants_s[device] = _device_instant(tasks, next_on[device], instants_s[device], instants_s[devices])
    instants_s[devices] = _edge_instant(tasks, task, instants_s)


@compiled
def expand(
    tasks: FlatTasks,
    task: int,
    next_on: IntArray,
    labels: Labels,
    count: int,
    relaxations: Relaxations,
    guide: Guide,
    beat_units: int,
    price: float,
    out: Candidates,
) -> int:
    """Fill `out` with what `count` labels become after `task`; gives how many. `next_on` is already past it.

    Candidates that cannot end above `beat_units` are left out.
    """
    devices = len(next_on)
    bounded = len(relaxations.edge_steps) > len(tasks.arrival_s)
    guided = len(guide.child) > 0
    mine = tasks.device[task]
    arrival_s = tasks.arrival_s[task]
    filled = 0
    for label in range(count):
        for option in range(tasks.first[task] - 1, tasks.last[task]):
            instants_s = out.instants_s[filled]
            for place in range(devices + 1):
                instants_s[place] = labels.instants_s[label, place]
            units = labels.units[label]
            if option < tasks.first[task]:
                choice = -1
            else:
                choice = option
                line = paper_timeline(
                    arrival_s,
                    instants_s[mine],
                    instants_s[devices],
                    tasks.head_s[option],
                    tasks.upload_s[option],
                    tasks.tail_s[option],
                )
                if not on_time(line.finish_s, tasks.deadline_s[task]):
                    continue
                instants_s[mine], instants_s[devices] = line.send_s, line.finish_s
                units += tasks.units[option]
            to_come = NO_BOUND
            if guided:
                node = guide.child[task, labels.node[label], option + 1 - tasks.first[task]]
                if node < 0:
                    continue
                to_come = guide.to_come_units[task + 1, node]
                if units + to_come <= beat_units:
                    continue
                out.node[filled] = node
            settle_label(tasks, task + 1, next_on, instants_s)
            out.units[filled], out.parent[filled], out.option[filled] = units, label, choice
            if bounded:
                edge_units, device_units = bounds_to_come(relaxations, task + 1, next_on, instants_s)
                to_come = min(to_come, edge_units, device_units)
                if units + to_come <= beat_units:
                    continue
                out.bound[filled] = units + to_come
                out.rank[filled] = float(units) + 2.0 * edge_units + device_units
            else:
                lag_s = 0.0
                for instant_s in instants_s:
                    lag_s += min(instant_s - arrival_s, DEAD_S)
                out.rank[filled] = units - price * lag_s
            filled += 1
    return filled


@compiled
def bounds_to_come(
    relaxations: Relaxations, task: int, next_on: IntArray, instants_s: FloatArray
) -> tuple[int, int]:
    """Bounds on the units that tasks from `task` on can add: without device conflicts, without edge conflicts."""
    devices = len(next_on)
    edge_units = worth(
        relaxations.edge_limit_s[task],
        relaxations.edge_units[task],
        relaxations.edge_steps[task],
        instants_s[devices],
    )
    device_units = 0
    for device in range(devices):
        follower = next_on[device]
        device_units += worth(
            relaxations.device_limit_s[follower],
            relaxations.device_units[follower],
            relaxations.device_steps[follower],
            instants_s[device],
        )
    return edge_units, device_units
