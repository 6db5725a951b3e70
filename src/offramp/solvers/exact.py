"""`exact`: the optimum of the paper's timing model, or a schedule and a bound within a limit on labels."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from offramp.errors import OfframpError
from offramp.instance import Instance
from offramp.schedule import Schedule
from offramp.state import paper_schedule

if TYPE_CHECKING:
    from offramp.equations import IntArray
    from offramp.solvers.bounds import Relaxations
    from offramp.solvers.flat import Flattened

LABEL_RANGE = (1, 1 << 16)
"""What `max_labels` may be."""

_QUICK_LABELS = 256
_SHORT_STREAM = 1000
_STEPS = 64
_STEP_ROOM = 1 << 22


class Exact:
    """The label method. `max_labels` None proves the optimum or refuses; a limit gives a schedule and a bound."""

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
        """Solve under `paper`. Raises OfframpError where no `max_labels` is set and the proof would take too much."""
        from offramp.solvers.flat import flatten
        from offramp.solvers.labels import OutOfRoomError

        started = time.perf_counter()
        flat = flatten(instance.system, instance.tasks)
        if not len(flat.index):
            options, bound_units, units = np.empty(0, dtype=np.int64), 0, 0
        elif self._max_labels is None:
            try:
                units, options = self._prove(flat)
            except OutOfRoomError as error:
                raise OfframpError(
                    "max-labels",
                    None,
                    f"the optimum of these {len(instance.tasks)} tasks needs more labels than fit (it came to task "
                    f"{int(flat.index[error.task])})",
                    "give --max-labels 256: a schedule and a bound in bounded time and memory",
                ) from None
            bound_units = units
        else:
            units, options, bound_units = self._bound(flat, self._max_labels)
        schedule = paper_schedule(instance, flat.decisions(options))
        proven = bound_units <= units and abs(schedule.gain - units / flat.units_per_gain) <= 1e-9 * (
            1 + schedule.gain
        )
        # Half a unit for each task covers the rounding of gains to units.
        bound = (bound_units + len(flat.index)) / flat.units_per_gain
        return Schedule(
            schedule.tasks,
            schedule.gain,
            upper_bound=schedule.gain if proven else max(bound, schedule.gain),
            status="optimal" if proven else "feasible",
            solve_s=time.perf_counter() - started,
        )

    def _prove(self, flat: Flattened) -> tuple[int, IntArray]:
        """The optimum in units and the options that reach it. Raises OutOfRoomError."""
        from offramp.solvers.labels import EXACT, FORGET, OutOfRoomError, run_sweep

        tasks = flat.tasks
        if len(tasks.arrival_s) > _SHORT_STREAM:
            # Bounds on all that is to come tell labels apart only towards the end of a long stream.
            outcome = run_sweep(tasks, EXACT, _QUICK_LABELS, progress=self._progress)
            return outcome.units, outcome.taken()
        try:
            outcome = run_sweep(tasks, EXACT, _QUICK_LABELS, most_labels=_QUICK_LABELS)
        except OutOfRoomError:
            pass
        else:
            return outcome.units, outcome.taken()
        relaxations = _relax(flat)
        first = run_sweep(tasks, FORGET, _QUICK_LABELS, relaxations=relaxations, progress=self._progress)
        if first.forgotten_units <= first.units:
            return first.units, first.taken()
        better = run_sweep(
            tasks,
            EXACT,
            _QUICK_LABELS,
            relaxations=relaxations,
            beat_units=first.units,
            progress=self._progress,
        )
        best = better if better.units > first.units else first
        return best.units, best.taken()

    def _bound(self, flat: Flattened, max_labels: int) -> tuple[int, IntArray, int]:
        """Units of a schedule, its options, and an upper bound in units."""
        from offramp.solvers.labels import FORGET, JOIN, run_sweep, start_units

        tasks = flat.tasks
        relaxations = _relax(flat)
        found = run_sweep(tasks, FORGET, max_labels, relaxations=relaxations, progress=self._progress)
        bound_units = min(max(found.units, found.forgotten_units), start_units(tasks, relaxations))
        if bound_units > found.units:
            joined = run_sweep(
                tasks,
                JOIN,
                max_labels,
                relaxations=relaxations,
                beat_units=found.units,
                history=False,
                progress=self._progress,
            )
            bound_units = min(bound_units, max(found.units, joined.units))
        return found.units, found.taken(), bound_units


def _relax(flat: Flattened) -> Relaxations:
    from offramp.solvers.bounds import relax

    tasks = len(flat.index)
    return relax(flat.tasks, min(_STEPS, max(4, _STEP_ROOM // tasks)))
