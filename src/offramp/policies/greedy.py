"""The best option for the task at hand alone: blind to queues (`greedy`) or not (`myopic` and its halves)."""

from __future__ import annotations

from typing import Self

import numpy as np

from offramp import equations
from offramp.equations import BoolArray
from offramp.observation import Observation
from offramp.options import OptionTable
from offramp.policies.base import Context, choose
from offramp.task import Decision

RISK = 0.1
"""Share of the most gain to be expected that `myopic` gives up for the gain itself, or for an earlier finish."""


class Greedy:
    """The paper's Greedy: the best exit whose own processing fits the budget, as if every queue were empty."""

    @classmethod
    def create(cls, context: Context) -> Self:
        """Needs nothing."""
        return cls()

    def decide(self, observation: Observation) -> Decision:
        """Best gain with head + upload + tail within the budget; among equals the shortest."""
        options = observation.options
        finish_s = equations.unqueued_finish(
            observation.task.arrival_s, options.head_s, options.upload_s, options.tail_s
        )
        return choose(options, observation.feasible(finish_s), finish_s)


class Myopic:
    """Greedy that sees the backlog of device, link and edge; it does not spare them for the tasks to come."""

    @classmethod
    def create(cls, context: Context) -> Self:
        """Needs nothing."""
        return cls()

    def decide(self, observation: Observation) -> Decision:
        """Best gain whose predicted finish meets the deadline; among equals the first to finish.

        Over links that are estimated, only among those whose gain, weighed by the chance to get it, is near the most.
        """
        options = observation.options
        finish_s = observation.timeline().finish_s
        allowed = observation.feasible(finish_s) & self.permitted(options)
        if observation.chance is not None:
            weighed = np.where(allowed, observation.expected_gain, -np.inf)
            most = weighed.max()
            allowed &= weighed >= most - RISK * abs(most)
        return choose(options, allowed, finish_s)

    def permitted(self, options: OptionTable) -> BoolArray:
        """The rows that it considers."""
        return options.gain > 0


class DeviceOnly(Myopic):
    """Myopic over the exits that run on the device to the end."""

    def permitted(self, options: OptionTable) -> BoolArray:
        """Local rows."""
        return options.local


class EdgeOnly(Myopic):
    """Myopic over the exits that run on the edge from the first layer."""

    def permitted(self, options: OptionTable) -> BoolArray:
        """Rows with cut 0."""
        from_the_first_layer: BoolArray = options.cut == 0
        return from_the_first_layer
