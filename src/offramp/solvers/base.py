"""What a solver is."""

from __future__ import annotations

from typing import Protocol

from offramp.instance import Instance
from offramp.schedule import Schedule


class Solver(Protocol):
    """Sees all tasks at once. Its options are its constructor's; all have defaults."""

    def solve(self, instance: Instance) -> Schedule:
        """A schedule with the proof that comes with it, under the timing model the solver names (`paper` unless it
        says otherwise). Raises OfframpError.
        """
        ...
