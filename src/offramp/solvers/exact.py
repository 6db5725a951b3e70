"""`exact`: the optimum of the paper's timing model, or a schedule and a bound within a limit on labels."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from offramp.errors import OfframpError
from offramp.instance import Instance
from offramp.schedule import Schedule

if TYPE_CHECKING:
    from offramp.equations import IntArray
    from offramp.solvers.flat import Flattened
    from offramp.solvers.labels import Outcome

LABEL_RANGE = (1, 1 << 16)
"""What `max_labels` may be."""

_QUICK_LABELS = 256
_LONG_STREAM = 1000
_LONG_LABELS = 4096
_ROUNDS = (32, 128, 512, 1024)
_EXACT_PER_ROUND = 16
_MOST_ROUND = 1 << 21


class Exact:
    """The label method.

    Args:
        max_labels: None proves the optimum or refuses; a limit L gives a schedule and a bound in time and memory in
            proportion to M · L.
        progress: called now and then with the tasks a sweep has met and the tasks in all; there are several sweeps.
    """

    def __init__(
        self, max_labels: int | None = None, progress: Callable[[int, int], None] | None = None
    ) -> None:
        if max_labels is not None and not LABEL_RANGE[0] <= max_labels <= LABEL_RANGE[1]:
            raise OfframpError(
                "max-labels",
                max_labels,
                f"must be in {LABEL_RANGE[0]}..{LABEL_RANGE[1]}",
                "256 is a good start",
            )
        self._max_labels = max_labels
        self._progress = progress

    def solve(self, instance: Instance) -> Schedule:
        """Solve under `paper`. Raises OfframpError where no `max_labels` is set and the proof takes too much."""
        from offramp.solvers.flat import flatten
        from offramp.solvers.layout import lay_out

        started = time.perf_counter()
        flat = flatten(instance.system, instance.tasks)
        search = _Search(flat, self._progress)
        if not len(flat.index):
            search.bound_units = 0
        elif self._max_labels is not None:
            search.bound(self._max_labels)
        elif not search.prove():
            raise OfframpError(
                "max-labels",
                None,
                f"proving the optimum of these {len(instance.tasks)} tasks takes more labels than there is room for",
                "give --max-labels 256: a schedule and a bound, in time and memory in proportion to the tasks",
            )
        rows = flat.rows(search.options)
        laid = lay_out(instance.tasks, flat.tables, flat.table_of, rows, instance.system.devices)
        gain = sum(row.gain for row in laid)
        # The second test would catch a rounding error between the labels' instants and the schedule's.
        proven = search.bound_units <= search.units and abs(
            gain - search.units / flat.units_per_gain
        ) <= 1e-9 * (1 + gain)
        # Half a unit for each task covers the rounding of gains to units.
        bound = (search.bound_units + len(flat.index)) / flat.units_per_gain
        return Schedule(
            laid,
            gain,
            upper_bound=gain if proven else max(bound, gain),
            status="optimal" if proven else "feasible",
            solve_s=time.perf_counter() - started,
        )


class _Search:
    """The best schedule so far, in units of gain, and what no schedule exceeds."""

    def __init__(self, flat: Flattened, progress: Callable[[int, int], None] | None) -> None:
        self._tasks = flat.tasks
        self._progress = progress
        self.units = 0
        self.options: IntArray = np.full(len(flat.index), -1, dtype=np.int64)
        self.bound_units = int(flat.tasks.best_units.sum())

    @property
    def _proven(self) -> bool:
        return self.bound_units <= self.units

    def prove(self) -> bool:
        """Search until the optimum is proven; False where that takes more room than there is."""
        long = len(self._tasks.arrival_s) > _LONG_STREAM
        if self._sweep_all(_LONG_LABELS if long else _QUICK_LABELS):
            return True
        for labels in _ROUNDS:
            if labels * len(self._tasks.arrival_s) > _MOST_ROUND:
                return False
            self.bound(labels, then_all=_EXACT_PER_ROUND * labels)
            if self._proven:
                return True
        return False

    def _sweep_all(self, most_labels: int) -> bool:
        """Keep every label that nothing dominates, without bounds; False if there are too many."""
        from offramp.solvers.labels import EXACT, OutOfRoomError, run_sweep

        try:
            outcome = run_sweep(
                self._tasks, EXACT, _QUICK_LABELS, most_labels=most_labels, progress=self._progress
            )
        except OutOfRoomError:
            return False
        self.units, self.options = outcome.units, outcome.taken()
        self.bound_units = self.units
        return True

    def bound(self, labels: int, then_all: int = 0) -> None:
        """A schedule by forgetting labels, a bound by joining them, and a better schedule that the bound guides.

        With `then_all` a last sweep keeps up to so many labels, all that the bound leaves hope for.
        """
        from offramp.solvers.labels import (
            EXACT,
            FORGET,
            JOIN,
            OutOfRoomError,
            guide_fits,
            relax,
            run_sweep,
            start_units,
        )

        tasks, progress = self._tasks, self._progress
        relaxations = relax(tasks)
        self._lower(start_units(tasks, relaxations))
        self._take(
            run_sweep(
                tasks, FORGET, labels, relaxations=relaxations, beat_units=self.units, progress=progress
            )
        )
        if self._proven:
            return
        guided = guide_fits(tasks, labels)
        joined = run_sweep(
            tasks,
            JOIN,
            labels,
            relaxations=relaxations,
            beat_units=self.units,
            history=False,
            make_guide=guided,
            progress=progress,
        )
        self._lower(joined.units)
        if self._proven or not guided:
            return
        for mode, most_labels in ((FORGET, labels), (EXACT, then_all)):
            if most_labels == 0 or self._proven:
                return
            try:
                outcome = run_sweep(
                    tasks,
                    mode,
                    labels,
                    most_labels=most_labels,
                    relaxations=relaxations,
                    guide=joined.guide,
                    beat_units=self.units,
                    progress=progress,
                )
            except OutOfRoomError:
                return
            self._take(outcome)

    def _take(self, outcome: Outcome) -> None:
        """Learn from a sweep that kept to schedules: what it found, and that only what it forgot can be better."""
        if outcome.units > self.units:
            self.units, self.options = outcome.units, outcome.taken()
        self._lower(outcome.forgotten_units)

    def _lower(self, bound_units: int) -> None:
        """Learn that no schedule which beats the best one earns more than `bound_units`."""
        self.bound_units = min(self.bound_units, max(self.units, bound_units))
