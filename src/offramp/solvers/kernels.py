"""The label method: what can matter to the tasks to come is when each device and the edge are free.

A label is such a state and the units of gain earned on the way to it. Task by task, every label drops the task or
serves it with one of its options; instants are then raised to the next one at which they can matter, and a label goes
if another is free no later anywhere and has earned no less.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from offramp.equations import FloatArray, IntArray
from offramp.solvers.bounds import Relaxations, worth
from offramp.solvers.compiled import compiled, on_time, paper_timeline
from offramp.solvers.flat import FlatTasks

EXACT, FORGET, JOIN = 0, 1, 2
"""What becomes of labels beyond the room there is: refuse, forget (a schedule), or join to a better one (a bound)."""

DONE, PAUSED, NEEDS_LABELS, NEEDS_HISTORY = 0, 1, 2, 3
"""Why `advance` returned."""

_ROUNDING = 1e-12
_EDGE_LOOKAHEAD = 12
_ATTEMPTS = 12
_DEAD_S = 1e6
_NO_BOUND = 1 << 62


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
def _settle(tasks: FlatTasks, task: int, next_on: IntArray, instants_s: FloatArray) -> None:
    """Raise every instant of a label that has yet to meet `task` and all later ones."""
    devices = len(next_on)
    for device in range(devices):
        instants_s[device] = _device_instant(tasks, next_on[device], instants_s[device], instants_s[devices])
    instants_s[devices] = _edge_instant(tasks, task, instants_s)


@compiled
def _expand(
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
            to_come = _NO_BOUND
            if guided:
                node = guide.child[task, labels.node[label], option + 1 - tasks.first[task]]
                if node < 0:
                    continue
                to_come = guide.to_come_units[task + 1, node]
                if units + to_come <= beat_units:
                    continue
                out.node[filled] = node
            _settle(tasks, task + 1, next_on, instants_s)
            out.units[filled], out.parent[filled], out.option[filled] = units, label, choice
            if bounded:
                edge_units, device_units = _to_come(relaxations, task + 1, next_on, instants_s)
                to_come = min(to_come, edge_units, device_units)
                if units + to_come <= beat_units:
                    continue
                out.bound[filled] = units + to_come
                out.rank[filled] = float(units) + 2.0 * edge_units + device_units
            else:
                lag_s = 0.0
                for instant_s in instants_s:
                    lag_s += min(instant_s - arrival_s, _DEAD_S)
                out.rank[filled] = units - price * lag_s
            filled += 1
    return filled


@compiled
def _to_come(
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
                damage += price * min(labels.instants_s[label, place] - instants_s[place], _DEAD_S)
        if damage < least:
            best, least = label, damage
    return best


TASK, COUNT, FORGOTTEN, WORK = 0, 1, 2, 3
"""Places in `Sweep.state`: tasks met, labels, greatest bound of what was forgotten (-1: nothing), comparisons."""


@compiled
def settle(tasks: FlatTasks, sweep: Sweep) -> None:
    """Prepare the one label from which a sweep starts, whose instants are as the caller set them."""
    sweep.next_on[:] = tasks.first_on
    _settle(tasks, sweep.state[TASK], sweep.next_on, sweep.labels.instants_s[0])


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
        filled = _expand(
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
    edge_units, device_units = _to_come(
        relaxations, sweep.state[TASK], sweep.next_on, sweep.labels.instants_s[0]
    )
    return min(edge_units, device_units)


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


@compiled
def to_come(tasks: FlatTasks, child: IntArray) -> IntArray:
    """The `to_come_units` that go with the children a joining sweep has recorded."""
    count, nodes, _ = child.shape
    units = np.zeros((count + 1, nodes), dtype=np.int64)
    for task in range(count - 1, -1, -1):
        for node in range(nodes):
            best = -_NO_BOUND
            for choice in range(tasks.last[task] - tasks.first[task] + 1):
                after = child[task, node, choice]
                if after >= 0:
                    gained = tasks.units[tasks.first[task] + choice - 1] if choice > 0 else 0
                    best = max(best, units[task + 1, after] + gained)
            units[task, node] = best
    return units
