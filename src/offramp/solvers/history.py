"""The way back through a sweep: the options that a label took, and what the nodes of a joined sweep can still add."""

from __future__ import annotations

import numpy as np

from offramp.equations import IntArray
from offramp.solvers.compiled import compiled
from offramp.solvers.flat import FlatTasks
from offramp.solvers.states import NO_BOUND
from offramp.solvers.sweep import TASK, Sweep


@compiled
def trace(sweep: Sweep, label: int) -> IntArray:
    """The option of every task (-1: dropped) on the way to one of the labels that a finished sweep ends with."""
    options = np.empty(sweep.state[TASK], dtype=np.int64)
    for task in range(sweep.state[TASK] - 1, -1, -1):
        row = sweep.begin[task] + label
        options[task] = sweep.option[row]
        label = sweep.parent[row]
    return options


@compiled
def compact(sweep: Sweep) -> None:
    """Take out of the history what no present label came from, so that it grows with tasks, not with labels."""
    task = sweep.state[TASK]
    used = np.zeros(sweep.begin[task] + 1, dtype=np.bool_)
    place = np.empty(sweep.begin[task] + 1, dtype=np.int64)
    for row in range(sweep.begin[task - 1], sweep.begin[task]):
        used[row] = True
    for step in range(task - 1, 0, -1):
        for row in range(sweep.begin[step], sweep.begin[step + 1]):
            if used[row]:
                used[sweep.begin[step - 1] + sweep.parent[row]] = True
    filled = 0
    before = 0
    for step in range(task):
        begin, end = sweep.begin[step], sweep.begin[step + 1]
        sweep.begin[step] = filled
        for row in range(begin, end):
            if used[row]:
                place[row] = filled - sweep.begin[step]
                sweep.parent[filled] = place[before + sweep.parent[row]] if step > 0 else 0
                sweep.option[filled] = sweep.option[row]
                filled += 1
        before = begin
    sweep.begin[task] = filled


@compiled
def to_come(tasks: FlatTasks, child: IntArray) -> IntArray:
    """The `to_come_units` that go with the children a joining sweep has recorded."""
    count, nodes, _ = child.shape
    units = np.zeros((count + 1, nodes), dtype=np.int64)
    for task in range(count - 1, -1, -1):
        for node in range(nodes):
            best = -NO_BOUND
            for choice in range(tasks.last[task] - tasks.first[task] + 1):
                after = child[task, node, choice]
                if after >= 0:
                    gained = tasks.units[tasks.first[task] + choice - 1] if choice > 0 else 0
                    best = max(best, units[task + 1, after] + gained)
            units[task, node] = best
    return units
