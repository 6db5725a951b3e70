"""`random`: the paper's lower reference."""

from __future__ import annotations

from typing import Self

import numpy as np

from offramp.observation import Observation
from offramp.policies.base import Context
from offramp.task import DROP, Decision


class Random:
    """Draws an exit evenly from 0 (drop) to u, then a cut evenly from 0 to l, whatever the state."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    @classmethod
    def create(cls, context: Context) -> Self:
        """Takes the context's generator."""
        return cls(context.rng)

    def decide(self, observation: Observation) -> Decision:
        """An option at random."""
        options = observation.options
        exit = int(self._rng.integers(int(options.exit[-1]) + 1))
        if exit == 0:
            return DROP
        cuts = int(np.count_nonzero(options.exit == exit))
        return Decision(exit, int(self._rng.integers(cuts)))
