"""Published systems as policies: `edgent` and `neurosurgeon`, as their papers decide for one request.

Neither knows of other tasks: their predictions are processing and transmission alone, as if nothing waited.
"""

from __future__ import annotations

from typing import Self

import numpy as np

from offramp import equations
from offramp.equations import BoolArray
from offramp.observation import Observation
from offramp.options import OptionTable
from offramp.policies.base import Context
from offramp.task import DROP, Decision


class Edgent:
    """Li, Zhou, Chen: Edge Intelligence (MECOMM 2018), Algorithm 1.

    From the deepest exit to the shallowest: take its cut with the least latency, and stop at the first exit whose
    latency is within the requirement. Where none is, the paper returns nothing; here the task is dropped.
    """

    @classmethod
    def create(cls, context: Context) -> Self:
        """Needs nothing."""
        return cls()

    def decide(self, observation: Observation) -> Decision:
        """The deepest exit that fits by itself, at its fastest cut."""
        task, options = observation.task, observation.options
        finish_s = equations.unqueued_finish(task.arrival_s, options.head_s, options.upload_s, options.tail_s)
        fits = observation.feasible(finish_s)
        if not fits.any():
            return DROP
        deepest = int(options.exit[fits].max())
        return _fastest(observation, options.exit == deepest)


class Neurosurgeon:
    """Kang et al.: Neurosurgeon (ASPLOS 2017), partitioning for latency.

    The full network, which here is the deepest exit, at the cut with the least end-to-end latency. It knows neither
    early exits nor deadlines, so it drops nothing: what comes late has had its time on device and edge.
    """

    @classmethod
    def create(cls, context: Context) -> Self:
        """Needs nothing."""
        return cls()

    def decide(self, observation: Observation) -> Decision:
        """The deepest exit at its fastest cut."""
        options = observation.options
        return _fastest(observation, options.exit == options.exit[-1])


def _fastest(observation: Observation, allowed: BoolArray) -> Decision:
    return observation.options.decision(fastest_row(observation.options, allowed))


def fastest_row(options: OptionTable, allowed: BoolArray) -> int:
    """The allowed row with the least processing and transmission, the first among equals."""
    latency_s = equations.unqueued_finish(0.0, options.head_s, options.upload_s, options.tail_s)
    return int(np.argmin(np.where(allowed, latency_s, np.inf)))
