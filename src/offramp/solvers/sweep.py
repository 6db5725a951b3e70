"""Sweeps of the label method: which labels stay.

A label goes if another is free no later anywhere and has earned no less. What becomes of labels for which there is no
room makes three kinds of sweep: one that proves, one that finds a schedule, one that finds a bound.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from offramp.equations import FloatArray, IntArray
from offramp.solvers.bounds import Relaxations
from offramp.solvers.compiled import compiled
from offramp.solvers.flat import FlatTasks
from offramp.solvers.states import DEAD_S, Candidates, Guide, Labels, bounds_to_come, expand, settle_label

EXACT, FORGET, JOIN = 0, 1, 2
"""What becomes of labels beyond the room there is: refuse, forget (a schedule), or join to a better one (a bound)."""

DONE, PAUSED, NEEDS_LABELS, NEEDS_HISTORY = 0, 1, 2, 3
"""Why `advance` returned."""

_ATTEMPTS = 12


@compiled
def _no_later(left_s: FloatArray, row: int, right_s: FloatArray, slack_s: float) -> bool:
    """Whether a row of `left` is free no later than `right` anywhere, give or take `slack_s`."""
    # The edge comes first: it differs most often.
    for place in range(len(right_s) - 1, -1, -1):  # noqa: SIM110
        if left_s[row, place] > right_s[place] + slack_s:
            return False
    return True


class Sweep(NamedTuple):
    """A sweep over M tasks that `advance` carries on with: L labels, scratch, and the way back.

    Attributes:
        labels: the first `state[COUNT]` rows are the labels that have met `state[TASK]` tasks.
        kept, anchor_s, origin, scan: scratch of `_select`, L rows each: labels, their instants before others were
            joined to them, the candidates they were, and the order in which they are compared.
        found: scratch, L · (most options + 1) rows.
        next_on: (N,) first task of each device that the labels have yet to meet.
        state: integers, see the constants below.
        slack_s: (1,) seconds by which a label may be later than one it makes needless; grows when room is short.
        begin: (M + 1,) where a task's rows of the history start.
        parent, option: the history: which label each came from, by which option (-1: task dropped).
        child: the `Guide`'s, to be filled with -1 beforehand, where one is to be made.
    """

    labels: Labels
    kept: Labels
    anchor_s: FloatArray
    origin: IntArray
    scan: IntArray
    found: Candidates
    next_on: IntArray
    state: IntArray
    slack_s: FloatArray
    begin: IntArray
    parent: IntArray
    option: IntArray
    child: IntArray


class Kept(NamedTuple):
    """What `_select` gives.

    Attributes:
        labels: how many were kept.
        crowded: whether candidates found no room.
        forgotten_units: greatest bound of what was forgotten, -1 if nothing was.
        work: comparisons made.
    """

    labels: int
    crowded: bool
    forgotten_units: int
    work: int


@compiled
def _select(
    found: Candidates, order: IntArray, mode: int, slack_s: float, patient: bool, price: float, sweep: Sweep
) -> Kept:
    """Write the candidates that no other one dominates to `sweep.kept`, and where they are to `sweep.origin`.

    `order` names the candidates, best rank last. With `slack_s` > 0 a candidate also goes where another is free at
    most that much later (FORGET), or is joined to it (JOIN): least instants, greatest units. When room is short, all
    others go the same way; or nothing is done about it, if not `patient` or EXACT. `went` is set for JOIN.
    """
    kept, anchor_s, scan = sweep.kept, sweep.anchor_s, sweep.scan
    room = len(kept.units)
    count = work = 0
    forgotten = -1
    crowded = False
    for place in range(len(order) - 1, -1, -1):
        candidate = order[place]
        if crowded and mode == FORGET:
            forgotten = max(forgotten, found.bound[candidate])
            continue
        instants_s = found.instants_s[candidate]
        units = found.units[candidate]
        close = -1
        beaten = False
        for turn in range(count):
            label = scan[turn]
            if kept.units[label] < units or not _no_later(kept.instants_s, label, instants_s, slack_s):
                continue
            if slack_s == 0 or _no_later(kept.instants_s, label, instants_s, 0.0):
                beaten = True
                found.went[candidate] = label
                # What has just beaten one candidate will beat more: have it met earlier.
                scan[turn], scan[turn // 2] = scan[turn // 2], label
                work += turn
                break
            if close < 0 and _no_later(anchor_s, label, instants_s, slack_s):
                close = label
        if beaten:
            continue
        work += count
        if close < 0 and count < room:
            for at in range(len(instants_s)):
                kept.instants_s[count, at] = anchor_s[count, at] = instants_s[at]
            kept.units[count] = units
            sweep.origin[count] = candidate
            found.went[candidate] = count
            scan[count] = count
            count += 1
            continue
        if close < 0:
            crowded = True
            if mode == EXACT or not patient:
                break
            if mode == JOIN:
                close = _least_damage(kept, count, instants_s, units, price)
        if mode == JOIN:
            found.went[candidate] = close
            for at in range(len(instants_s)):
                kept.instants_s[close, at] = min(kept.instants_s[close, at], instants_s[at])
            kept.units[close] = max(kept.units[close], units)
        else:
            forgotten = max(forgotten, found.bound[candidate])
    return Kept(count, crowded, forgotten, work)


@compiled
def _least_damage(labels: Labels, count: int, instants_s: FloatArray, units: int, price: float) -> int:
    """The label that gains least by taking in another; a second earlier counts `price` units."""
    best = 0
    least = np.inf
    for label in range(count):
        damage = max(0.0, float(units - labels.units[label]))
        for place in range(len(instants_s)):
            if labels.instants_s[label, place] > instants_s[place]:
                damage += price * min(labels.instants_s[label, place] - instants_s[place], DEAD_S)
        if damage < least:
            best, least = label, damage
    return best


TASK, COUNT, FORGOTTEN, WORK = 0, 1, 2, 3
"""Places in `Sweep.state`: tasks met, labels, greatest bound of what was forgotten (-1: nothing), comparisons."""


@compiled
def settle(tasks: FlatTasks, sweep: Sweep) -> None:
    """Prepare the one label from which a sweep starts, whose instants are as the caller set them."""
    sweep.next_on[:] = tasks.first_on
    settle_label(tasks, sweep.state[TASK], sweep.next_on, sweep.labels.instants_s[0])


@compiled
def advance(
    tasks: FlatTasks,
    sweep: Sweep,
    mode: int,
    relaxations: Relaxations,
    guide: Guide,
    beat_units: int,
    price: float,
    least_slack_s: float,
    work: int,
) -> int:
    """Carry a sweep on until it is done, has made `work` more comparisons, or lacks room; gives which.

    `mode` is EXACT, FORGET or JOIN. What cannot earn more than `beat_units`, by the relaxations and the guide where
    they have rows, goes. With `least_slack_s` > 0 the slack adapts itself to the room there is, from that value up.
    A history without rows is not written, nor are children.
    """
    state = sweep.state
    room = len(sweep.labels.units)
    written = len(sweep.parent) > 0
    stop = state[WORK] + work
    while state[TASK] < len(tasks.arrival_s):
        task, count = state[TASK], state[COUNT]
        if state[WORK] >= stop:
            return PAUSED
        if written and sweep.begin[task] + room > len(sweep.parent):
            return NEEDS_HISTORY
        mine = tasks.device[task]
        sweep.next_on[mine] = tasks.next_same[task]
        filled = expand(
            tasks,
            task,
            sweep.next_on,
            sweep.labels,
            count,
            relaxations,
            guide,
            beat_units,
            price,
            sweep.found,
        )
        order = np.argsort(sweep.found.rank[:filled])
        slack_s = sweep.slack_s[0]
        for attempt in range(_ATTEMPTS):
            patient = least_slack_s == 0 or attempt == _ATTEMPTS - 1
            kept = _select(sweep.found, order, mode, slack_s, patient, price, sweep)
            state[WORK] += kept.work + filled
            if mode == EXACT or patient or not kept.crowded:
                break
            slack_s = max(slack_s * 1.5, least_slack_s)
        if mode == EXACT and kept.crowded:
            return NEEDS_LABELS
        sweep.slack_s[0] = slack_s * 0.7 if slack_s > least_slack_s else 0.0
        for label in range(kept.labels):
            sweep.labels.units[label] = sweep.kept.units[label]
            sweep.labels.node[label] = sweep.found.node[sweep.origin[label]]
            for place in range(len(sweep.next_on) + 1):
                sweep.labels.instants_s[label, place] = sweep.kept.instants_s[label, place]
        state[FORGOTTEN] = max(state[FORGOTTEN], kept.forgotten_units)
        if written:
            begin = sweep.begin[task]
            for label in range(kept.labels):
                sweep.parent[begin + label] = sweep.found.parent[sweep.origin[label]]
                sweep.option[begin + label] = sweep.found.option[sweep.origin[label]]
            sweep.begin[task + 1] = begin + kept.labels
        if len(sweep.child) > 0:
            for candidate in range(filled):
                choice = max(sweep.found.option[candidate] + 1 - tasks.first[task], 0)
                sweep.child[task, sweep.found.parent[candidate], choice] = sweep.found.went[candidate]
        state[TASK], state[COUNT] = task + 1, kept.labels
        if kept.labels == 0:
            return DONE
    return DONE


@compiled
def start_bounds(tasks: FlatTasks, sweep: Sweep, relaxations: Relaxations) -> int:
    """Bound on the units that all tasks can earn from the one label of a sweep that has just been settled."""
    edge_units, device_units = bounds_to_come(
        relaxations, sweep.state[TASK], sweep.next_on, sweep.labels.instants_s[0]
    )
    return min(edge_units, device_units)


@compiled
def score(
    tasks: FlatTasks,
    sweep: Sweep,
    device_free_s: FloatArray,
    edge_free_s: FloatArray,
    relaxations: Relaxations,
    guide: Guide,
    price: float,
    out_units: IntArray,
) -> None:
    """Most units that the tasks can earn from each of K states: (K, N) and (K,) instants in, (K,) units out.

    The sweep's labels are used over again; where they run out of room the units are a lower bound.
    """
    devices = len(sweep.next_on)
    for start in range(len(edge_free_s)):
        sweep.state[TASK], sweep.state[COUNT], sweep.state[WORK] = 0, 1, 0
        sweep.labels.units[0] = sweep.labels.node[0] = 0
        for device in range(devices):
            sweep.labels.instants_s[0, device] = device_free_s[start, device]
        sweep.labels.instants_s[0, devices] = edge_free_s[start]
        settle(tasks, sweep)
        advance(tasks, sweep, FORGET, relaxations, guide, -1, price, 0.0, 1 << 62)
        best = 0
        for label in range(sweep.state[COUNT]):
            best = max(best, sweep.labels.units[label])
        out_units[start] = best
