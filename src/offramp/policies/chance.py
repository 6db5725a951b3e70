"""`random`: the paper's lower reference."""

from __future__ import annotations

from typing import Self

import numpy as np

from offramp.observation import Observation
from offramp.policies.base import Context
from offramp.task import DROP, Decision


class Random:
    """Draws an exit evenly from 0 (drop) to u, then evenly one of its options, whatever the state.

    Attributes:
        rng: where it draws from.
    """

    varies = "it draws"

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    @classmethod
    def create(cls, context: Context) -> Self:
        """Takes the context's generator."""
        return cls(context.rng)

    def decide(self, observation: Observation) -> Decision:
        """An option at random."""
        options = observation.options
        exit = int(self.rng.integers(int(options.exit[-1]) + 1))
        if exit == 0:
            return DROP
        first, last = np.searchsorted(options.exit, (exit, exit + 1))
        return options.decision(int(first) + int(self.rng.integers(int(last - first))))
