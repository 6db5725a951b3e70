"""Upper bounds on what the tasks to come can still earn, by forgetting one kind of conflict.

Without conflicts on the devices, only when the edge is free matters; without the edge, each device is alone. Either
way the best gain to come is a falling step function of one instant, and these are built backwards from the last
task. A step function is two rows of `limit_s` (descending) and `units` (ascending): an instant t is worth the units
of the last step with t <= limit_s.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from offramp.equations import TIME_TOLERANCE_S, FloatArray, IntArray
from offramp.solvers.compiled import compiled
from offramp.solvers.flat import FlatTasks


class Relaxations(NamedTuple):
    """Step functions for every task and one past the last: rows of (M + 1, P), and how many steps each has.

    `edge_*[n]`: from task n on, against when the edge is free. `device_*[n]`: from task n on along its own device,
    against when that device is free.
    """

    edge_limit_s: FloatArray
    edge_units: IntArray
    edge_steps: IntArray
    device_limit_s: FloatArray
    device_units: IntArray
    device_steps: IntArray


@compiled
def relax(tasks: FlatTasks, most_steps: int) -> Relaxations:
    """Both relaxations; a function with more than `most_steps` steps is rounded up."""
    count = len(tasks.arrival_s)
    edge_limit_s = np.full((count + 1, most_steps), np.inf)
    device_limit_s = np.full((count + 1, most_steps), np.inf)
    edge_units = np.zeros((count + 1, most_steps), dtype=np.int64)
    device_units = np.zeros((count + 1, most_steps), dtype=np.int64)
    edge_steps = np.ones(count + 1, dtype=np.int64)
    device_steps = np.ones(count + 1, dtype=np.int64)
    for n in range(count - 1, -1, -1):
        after = n + 1
        steps = edge_steps[after]
        for step in range(steps):
            edge_limit_s[n, step] = edge_limit_s[after, step]
            edge_units[n, step] = edge_units[after, step]
        last_s = tasks.deadline_s[n] + 2 * TIME_TOLERANCE_S
        for option in range(tasks.first[n], tasks.last[n]):
            tail_s = tasks.tail_s[option]
            soonest_s = tasks.arrival_s[n] + tasks.head_s[option] + tasks.upload_s[option] + tail_s
            for step in range(edge_steps[after]):
                finish_s = min(edge_limit_s[after, step], last_s) + TIME_TOLERANCE_S
                if soonest_s > finish_s:
                    break
                worth = edge_units[after, step] + tasks.units[option]
                steps = _insert(edge_limit_s[n], edge_units[n], steps, finish_s - tail_s, worth)
        edge_steps[n] = steps

        after = tasks.next_same[n]
        steps = device_steps[after]
        for step in range(steps):
            device_limit_s[n, step] = device_limit_s[after, step]
            device_units[n, step] = device_units[after, step]
        for option in range(tasks.first[n], tasks.last[n]):
            head_s = tasks.head_s[option]
            total_s = head_s + tasks.upload_s[option] + tasks.tail_s[option]
            for step in range(device_steps[after]):
                start_s = min(device_limit_s[after, step] - head_s, last_s - total_s) + TIME_TOLERANCE_S
                if tasks.arrival_s[n] > start_s:
                    break
                worth = device_units[after, step] + tasks.units[option]
                steps = _insert(device_limit_s[n], device_units[n], steps, start_s, worth)
        device_steps[n] = steps
    return Relaxations(edge_limit_s, edge_units, edge_steps, device_limit_s, device_units, device_steps)


@compiled
def _insert(limit_s: FloatArray, units: IntArray, steps: int, new_limit_s: float, new_units: int) -> int:
    """Raise a step function to `new_units` up to `new_limit_s`; gives the number of steps."""
    at = 0
    while at < steps and limit_s[at] >= new_limit_s:
        if units[at] >= new_units:
            return steps
        if limit_s[at] == new_limit_s:
            break
        at += 1
    end = at
    while end < steps and units[end] <= new_units:
        end += 1
    if end == at and steps == len(limit_s):
        at = _forget_least(units, limit_s, steps, at)
        steps -= 1
        end = at
        # The step that was forgotten may have been raised to the new one's worth.
        if at > 0 and units[at - 1] >= new_units:
            return steps
    shift = at + 1 - end
    if shift > 0:
        for step in range(steps - 1, end - 1, -1):
            limit_s[step + 1] = limit_s[step]
            units[step + 1] = units[step]
    elif shift < 0:
        for step in range(end, steps):
            limit_s[step + shift] = limit_s[step]
            units[step + shift] = units[step]
    limit_s[at] = new_limit_s
    units[at] = new_units
    return steps + shift


@compiled
def _forget_least(units: IntArray, limit_s: FloatArray, steps: int, at: int) -> int:
    """Join the two neighbours of least difference, rounding up; gives where `at` has moved to."""
    least = 0
    for step in range(steps - 1):
        if units[step + 1] - units[step] < units[least + 1] - units[least]:
            least = step
    units[least] = units[least + 1]
    for step in range(least + 1, steps - 1):
        limit_s[step] = limit_s[step + 1]
        units[step] = units[step + 1]
    return at - 1 if at > least + 1 else at


@compiled
def worth(limit_s: FloatArray, units: IntArray, steps: int, instant_s: float) -> int:
    """Value of a step function at an instant; its first step must reach at least that far."""
    low, high = 0, steps - 1
    while low < high:
        middle = (low + high + 1) // 2
        if limit_s[middle] >= instant_s:
            low = middle
        else:
            high = middle - 1
    return int(units[low])
