"""`serial-dp`: the paper's Algorithm 1. Each task has the whole pipeline to itself, so it is no upper bound."""

from __future__ import annotations

import time

import numpy as np

from offramp.equations import FloatArray, IntArray
from offramp.errors import OfframpError
from offramp.instance import Instance
from offramp.options import OptionTable
from offramp.scenario import REFERENCE_SLOT_S
from offramp.schedule import Schedule

MOST_SLOTS = 1 << 29
"""Slots of budget over all tasks, 2 bytes each, beyond which a slot is too short."""

_MOST_INSTANT = 1 << 52


class SerialDp:
    """Algorithm 1 on whole slots, with F(D, t) computed once for each size.

    Args:
        slot_s: length of a slot, seconds; None takes the instance's scenario's, or the reference scenario's.
    """

    def __init__(self, slot_s: float | None = None) -> None:
        if slot_s is not None and not 0 < slot_s < float("inf"):
            raise OfframpError(
                "slot-s", slot_s, "must be > 0 and finite, seconds", "0.01 is the paper's regime"
            )
        self._slot_s = slot_s

    def solve(self, instance: Instance) -> Schedule:
        """The schedule it finds, under `paper`: `feasible`, for it proves nothing.

        Instants are rounded to slots so that what is on time here is on time there: arrivals and durations up,
        deadlines down. Raises OfframpError where the slot is too short for the stream.
        """
        from offramp.solvers.layout import lay_out
        from offramp.solvers.slots import serve_in_turn

        started = time.perf_counter()
        slot_s = self._slot_s
        if slot_s is None:
            slot_s = REFERENCE_SLOT_S if instance.scenario is None else instance.scenario.slot_s
        arrival, deadline = _in_slots(instance, slot_s)
        group, tables = _groups(instance)
        row, needs_s = _shortest(tables, len(instance.system.exits))
        needs = np.clip(np.ceil(needs_s / slot_s * (1 - 1e-12)), 1, _MOST_INSTANT).astype(np.int64)
        exit_of, _ = serve_in_turn(arrival, deadline, group, needs, tables[0].gain[row[0]])
        rows = np.where(exit_of > 0, row[group, exit_of - 1], -1)
        laid = lay_out(instance.tasks, tables, group, rows, instance.system.devices)
        gain = sum(task.gain for task in laid)
        return Schedule(laid, gain, None, "feasible", solve_s=time.perf_counter() - started)


def _in_slots(instance: Instance, slot_s: float) -> tuple[IntArray, IntArray]:
    """(M,) first slot in which each task can start and last slot by which it must have ended."""
    arrival_s: FloatArray = np.array([task.arrival_s for task in instance.tasks])
    deadline_s: FloatArray = np.array([task.deadline_s for task in instance.tasks])
    if deadline_s.max() / slot_s > _MOST_INSTANT or (deadline_s - arrival_s).sum() / slot_s > MOST_SLOTS:
        raise OfframpError(
            "slot-s",
            slot_s,
            f"the tasks' budgets may span at most {MOST_SLOTS} slots in all",
            "use a longer slot",
        )
    # An instant that was computed as slot × length may miss the whole number by its rounding.
    arrival, deadline = arrival_s / slot_s, deadline_s / slot_s
    first = np.ceil(arrival - 1e-9 - 1e-15 * arrival)
    last = np.floor(deadline + 1e-9 + 1e-15 * deadline)
    return first.astype(np.int64), last.astype(np.int64)


def _groups(instance: Instance) -> tuple[IntArray, list[OptionTable]]:
    """(M,) number of each task's option table, and the tables: one for each kind of device and size."""
    numbers: dict[tuple[tuple[float, float], int], int] = {}
    tables: list[OptionTable] = []
    group = np.empty(len(instance.tasks), dtype=np.int64)
    for n, task in enumerate(instance.tasks):
        key = (instance.system.kind(task.device), task.size)
        if key not in numbers:
            numbers[key] = len(tables)
            tables.append(instance.system.options(task.device, task.size))
        group[n] = numbers[key]
    return group, tables


def _shortest(tables: list[OptionTable], exits: int) -> tuple[IntArray, FloatArray]:
    """(tables, u) row of each exit's cut that takes least time on an idle system, and that time in seconds.

    They are F(D, t) for all t: the most accurate exit whose time is at most t.
    """
    row = np.empty((len(tables), exits), dtype=np.int64)
    least_s = np.empty((len(tables), exits))
    for number, table in enumerate(tables):
        total_s = table.head_s + table.upload_s + table.tail_s
        for exit in range(exits):
            row[number, exit] = np.argmin(np.where(table.exit == exit + 1, total_s, np.inf))
            least_s[number, exit] = total_s[row[number, exit]]
    return row, least_s
