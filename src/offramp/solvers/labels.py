"""Sweeps of the label method from Python: room that grows, an end to it, and the options that a sweep chose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from offramp.equations import FloatArray, IntArray
from offramp.solvers import bounds
from offramp.solvers import history as histories
from offramp.solvers import sweep as sweeps
from offramp.solvers.bounds import Relaxations
from offramp.solvers.flat import FlatTasks, Flattened
from offramp.solvers.states import Candidates, Guide, Labels
from offramp.solvers.sweep import EXACT, FORGET, JOIN, Sweep

__all__ = [
    "EXACT",
    "FORGET",
    "JOIN",
    "OutOfRoomError",
    "Outcome",
    "best_gain",
    "guide_fits",
    "relax",
    "run_sweep",
    "start_units",
]

MOST_WORK = 10_000_000_000
"""Comparisons of labels beyond which an exact sweep gives up: a few minutes."""

MOST_HISTORY = 1 << 26
"""Rows of history, 8 bytes each, beyond which an exact sweep gives up."""

_WORK_AT_A_TIME = 50_000_000
_FIRST_HISTORY = 1 << 16
_SLACK_PER_BUDGET = 1e-3
_STEPS, _LEAST_STEPS, _STEP_ROOM = 16, 4, 1 << 21
_GUIDE_ROOM = 1 << 27
_NO_RELAXATIONS = Relaxations(
    np.zeros((1, 1)),
    np.zeros((1, 1), np.int64),
    np.zeros(1, np.int64),
    np.zeros((1, 1)),
    np.zeros((1, 1), np.int64),
    np.zeros(1, np.int64),
)
_NO_GUIDE = Guide(np.zeros((0, 0, 0), np.int32), np.zeros((0, 0), np.int64))

Progress = Callable[[int, int], None]
"""Called now and then with tasks met and tasks in all."""


class OutOfRoomError(Exception):
    """A sweep needs more labels, work or memory than it may take; it came to flat task number `task`."""

    def __init__(self, task: int) -> None:
        super().__init__(f"out of room at task {task}")
        self.task = task


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a sweep gives, in units of gain.

    Attributes:
        units: of the best label; -1 if none is left, which proves that `beat_units` cannot be beaten.
        forgotten_units: no schedule that was forgotten on the way earns more; -1 if none was.
        options: the best label's option for each flat task, -1 where it is dropped; None without a history.
        guide: of a sweep that was to make one.
        labels: (M,) how many each task left; zeros without a history.
        work: comparisons made.
    """

    units: int
    forgotten_units: int
    options: IntArray | None
    guide: Guide | None
    labels: IntArray
    work: int

    def taken(self) -> IntArray:
        """`options` of a sweep with a history that some label survived."""
        if self.options is None:
            raise ValueError("this sweep has no schedule")
        return self.options


def _new_labels(room: int, devices: int) -> Labels:
    units, node = np.zeros((2, room), dtype=np.int64)
    return Labels(np.empty((room, devices + 1)), units, node)


def _new_candidates(rows: int, devices: int) -> Candidates:
    units, bound, parent, option, node, went = np.zeros((6, rows), dtype=np.int64)
    return Candidates(np.empty((rows, devices + 1)), units, bound, np.empty(rows), parent, option, node, went)


def _new_sweep(
    tasks: FlatTasks, room: int, history: int, device_free_s: FloatArray | None, edge_free_s: float
) -> Sweep:
    """A sweep that has met no task, with room for so many labels and rows of history, from a state (idle: None)."""
    devices = len(tasks.first_on)
    choices = 1 + int((tasks.last - tasks.first).max(initial=0))
    sweep = Sweep(
        labels=_new_labels(room, devices),
        kept=_new_labels(room, devices),
        anchor_s=np.empty((room, devices + 1)),
        origin=np.empty(room, dtype=np.int64),
        scan=np.empty(room, dtype=np.int64),
        found=_new_candidates(room * choices, devices),
        next_on=np.empty(devices, dtype=np.int64),
        state=np.array([0, 1, -1, 0]),
        slack_s=np.zeros(1),
        begin=np.zeros(len(tasks.arrival_s) + 1, dtype=np.int64),
        parent=np.empty(history, dtype=np.int32),
        option=np.empty(history, dtype=np.int32),
        child=_NO_GUIDE.child,
    )
    sweep.labels.instants_s[0, :devices] = -np.inf if device_free_s is None else device_free_s
    sweep.labels.instants_s[0, devices] = edge_free_s
    sweeps.settle(tasks, sweep)
    return sweep


def _with_room(sweep: Sweep, room: int) -> Sweep:
    """The same sweep with room for more labels."""
    devices = len(sweep.next_on)
    labels = _new_labels(room, devices)
    count = int(sweep.state[sweeps.COUNT])
    labels.instants_s[:count] = sweep.labels.instants_s[:count]
    labels.units[:count] = sweep.labels.units[:count]
    labels.node[:count] = sweep.labels.node[:count]
    choices = len(sweep.found.units) // len(sweep.labels.units)
    return sweep._replace(
        labels=labels,
        kept=_new_labels(room, devices),
        anchor_s=np.empty((room, devices + 1)),
        origin=np.empty(room, dtype=np.int64),
        scan=np.empty(room, dtype=np.int64),
        found=_new_candidates(room * choices, devices),
    )


def _with_history(sweep: Sweep, mode: int) -> Sweep:
    """The same sweep with room for more history: what no label needs goes first.

    OutOfRoomError at the limit of an exact one.
    """
    rows = len(sweep.parent)
    room = len(sweep.labels.units)
    histories.compact(sweep)
    used = int(sweep.begin[sweep.state[sweeps.TASK]])
    if used + room < rows // 2:
        return sweep
    longer = max(2 * rows, rows + 2 * room)
    if mode == EXACT and longer > MOST_HISTORY:
        raise OutOfRoomError(int(sweep.state[sweeps.TASK]))
    parent: IntArray = np.empty(longer, dtype=sweep.parent.dtype)
    option: IntArray = np.empty(longer, dtype=sweep.option.dtype)
    parent[:used], option[:used] = sweep.parent[:used], sweep.option[:used]
    return sweep._replace(parent=parent, option=option)


def _price(tasks: FlatTasks) -> float:
    """Units of gain that a second of delay may cost: the mean task's best gain over its budget."""
    return float(tasks.best_units.mean() / max(float((tasks.deadline_s - tasks.arrival_s).mean()), 1e-9))


def run_sweep(
    tasks: FlatTasks,
    mode: int,
    room: int,
    *,
    most_labels: int = 0,
    relaxations: Relaxations | None = None,
    guide: Guide | None = None,
    beat_units: int = -1,
    history: bool = True,
    make_guide: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Sweep over all tasks from an idle system.

    What cannot earn more than `beat_units` by `relaxations` or `guide` goes. EXACT starts with `room` labels and may
    take up to `most_labels`; FORGET and JOIN keep to `room`, and need the relaxations. With `make_guide` JOIN gives the
    guide for sweeps that are to beat as much. Raises OutOfRoomError.
    """
    sweep = _new_sweep(tasks, room, _FIRST_HISTORY if history else 0, None, -np.inf)
    count = len(tasks.arrival_s)
    if make_guide:
        choices = len(sweep.found.units) // room
        sweep = sweep._replace(child=np.full((count, room, choices), -1, dtype=np.int32))
    slack_s = 0.0 if mode == EXACT else _SLACK_PER_BUDGET * float((tasks.deadline_s - tasks.arrival_s).mean())
    price = _price(tasks)
    why = sweeps.PAUSED
    while why != sweeps.DONE:
        why = sweeps.advance(
            tasks,
            sweep,
            mode,
            _NO_RELAXATIONS if relaxations is None else relaxations,
            _NO_GUIDE if guide is None else guide,
            beat_units,
            price,
            slack_s,
            _WORK_AT_A_TIME,
        )
        met = int(sweep.state[sweeps.TASK])
        if why == sweeps.NEEDS_HISTORY:
            sweep = _with_history(sweep, mode)
        elif why == sweeps.NEEDS_LABELS:
            larger = 4 * len(sweep.labels.units)
            if larger > most_labels:
                raise OutOfRoomError(met)
            sweep = _with_room(sweep, larger)
        elif why == sweeps.PAUSED and mode == EXACT and sweep.state[sweeps.WORK] > MOST_WORK:
            raise OutOfRoomError(met)
        if progress is not None:
            progress(met, count)
    return _outcome(tasks, sweep, history)


def _outcome(tasks: FlatTasks, sweep: Sweep, history: bool) -> Outcome:
    _, count, forgotten, work = sweep.state.tolist()
    labels = np.diff(sweep.begin)
    guide = Guide(sweep.child, histories.to_come(tasks, sweep.child)) if len(sweep.child) else None
    if count == 0:
        return Outcome(-1, forgotten, None, guide, labels, work)
    best = int(sweep.labels.units[:count].argmax())
    options = histories.trace(sweep, best) if history else None
    return Outcome(int(sweep.labels.units[best]), forgotten, options, guide, labels, work)


def relax(tasks: FlatTasks) -> Relaxations:
    """Bounds on what is to come, in at most some tens of MB: the longer the stream, the coarser."""
    return bounds.relax(tasks, min(_STEPS, max(_LEAST_STEPS, _STEP_ROOM // len(tasks.arrival_s))))


def guide_fits(tasks: FlatTasks, labels: int) -> bool:
    """Whether there is memory for the guide of a sweep that joins so many labels."""
    choices = 1 + int((tasks.last - tasks.first).max())
    return len(tasks.arrival_s) * labels * choices <= _GUIDE_ROOM


def start_units(tasks: FlatTasks, relaxations: Relaxations) -> int:
    """Upper bound on the units that all tasks can earn from an idle system."""
    sweep = _new_sweep(tasks, 1, 0, None, -np.inf)
    return sweeps.start_bounds(tasks, sweep, relaxations)


def best_gain(
    flat: Flattened, device_free_s: FloatArray, edge_free_s: FloatArray, max_labels: int = 32
) -> FloatArray:
    """Gain that a few tasks can earn under `paper` from each of K states, for policies that look ahead.

    `device_free_s` (K, N) and `edge_free_s` (K,) are instants on the tasks' clock, in the past or -inf where idle.
    Gives (K,): exact while `max_labels` suffice, else what the labels that were kept lead to, a lower bound. A call
    costs some tens of microseconds before the first state, so ask for many states at once.
    """
    units = np.zeros(len(edge_free_s), dtype=np.int64)
    if len(flat.index):
        sweep = _new_sweep(flat.tasks, max_labels, 0, None, -np.inf)
        price = _price(flat.tasks)
        sweeps.score(flat.tasks, sweep, device_free_s, edge_free_s, _NO_RELAXATIONS, _NO_GUIDE, price, units)
    return units / flat.units_per_gain
