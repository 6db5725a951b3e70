"""What a policy is shown when it decides, and how each timing model predicts from it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from offramp import equations
from offramp.equations import BoolArray, FloatArray, Timeline
from offramp.link_estimate import Belief
from offramp.options import NetworkTerms, OptionTable
from offramp.task import Task

Timing = Literal["paper", "network"]
NetworkArrivals = tuple[FloatArray, FloatArray, FloatArray, FloatArray]
TIMINGS: tuple[Timing, ...] = ("paper", "network")


@dataclass(frozen=True, slots=True, eq=False)
class Backlog:
    """How far behind the system is, as instants; in the past or -inf where something is idle.

    Attributes:
        device_free_s: (N,) when each device can start another head.
        link_free_s: (N,) when each uplink can start another upload; `paper` does not read it.
        edge_arrivals_s: (J,) ascending, when tasks that are decided but not yet started reach the edge; empty
            under `paper`.
        edge_free_s: (J + 1,) when the edge can start a task that reaches it after the first j of those.
    """

    device_free_s: FloatArray
    link_free_s: FloatArray
    edge_arrivals_s: FloatArray
    edge_free_s: FloatArray

    def edge_free_at(self, arrival_s: FloatArray) -> FloatArray:
        """When the edge can start what reaches it at `arrival_s`, first come first served."""
        ahead = np.searchsorted(self.edge_arrivals_s, arrival_s, side="right")
        free: FloatArray = self.edge_free_s[ahead]
        return free


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """A task that has arrived, what can be done about it, and the backlog it meets.

    Attributes:
        now_s: the instant of the decision, at or after the task's arrival.
        options: the task's choices; a policy returns one of them or drops the task.
        timing: the model that `timeline` predicts with.
        chance: as long as the option table: probability that an option's upload is there in time; None where
            links are taken to be known.
    """

    task: Task
    now_s: float
    options: OptionTable
    backlog: Backlog
    timing: Timing = "paper"
    network: NetworkTerms = field(default_factory=NetworkTerms)
    chance: FloatArray | None = None
    _known: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def weighed(self, belief: Belief) -> Observation:
        """This observation with the chances that a belief gives its options' uploads."""
        if belief.certain:
            return self
        options, backlog = self.options, self.backlog
        _, send_s, _, _ = self.network_arrivals()
        start_s = np.maximum(send_s, backlog.link_free_s[self.task.device])
        behind_s = self.network.link_delay_s + options.tail_s + self.network.answer_s
        spare_s = self.task.deadline_s + equations.TIME_TOLERANCE_S - behind_s - start_s
        with np.errstate(divide="ignore", invalid="ignore"):
            slack = np.where(options.upload_s > 0, spare_s / options.upload_s, np.inf)
        chance = belief.chance(slack)
        return self if chance is None else replace(self, chance=np.where(options.local, 1.0, chance))

    @property
    def expected_gain(self) -> FloatArray:
        """Each option's gain times its `chance`: what it earns on average, if nothing but its upload can fail."""
        gain = self.options.gain
        return gain if self.chance is None else gain * self.chance

    def timeline(self) -> Timeline:
        """Predicted instants of every option, arrays as long as the option table; worked out once."""
        timeline: Timeline = self._known.get("timeline") or self._timeline()
        self._known["timeline"] = timeline
        return timeline

    def _timeline(self) -> Timeline:
        device, options, backlog = self.task.device, self.options, self.backlog
        if self.timing == "paper":
            return equations.paper_timeline(
                self.task.arrival_s,
                backlog.device_free_s[device],
                backlog.edge_free_s[-1],
                options.head_s,
                options.upload_s,
                options.tail_s,
            )
        device_start_s, send_s, _, arrival_s = self.network_arrivals()
        edge_start_s = np.maximum(arrival_s, backlog.edge_free_at(arrival_s))
        finish_s = equations.network_finish(
            send_s, edge_start_s, options.tail_s, self.network.answer_s, options.local
        )
        return Timeline(device_start_s, send_s, edge_start_s, finish_s)

    def timeline_of(self, row: int) -> tuple[float, ...]:
        """The predicted instants of one option, in the order of `Timeline`."""
        # An instant that is the same for all options is given once.
        return tuple(float(each[row] if np.ndim(each) else each) for each in self.timeline())

    def network_arrivals(self) -> NetworkArrivals:
        """Predicted instants of every option up to the edge, under `network`: see `equations.network_arrival`."""
        arrivals: NetworkArrivals = self._known.get("arrivals") or self._network_arrivals()
        self._known["arrivals"] = arrivals
        return arrivals

    def _network_arrivals(self) -> NetworkArrivals:
        device, options, backlog = self.task.device, self.options, self.backlog
        return equations.network_arrival(
            self.ready_s,
            backlog.device_free_s[device],
            backlog.link_free_s[device],
            self.network.link_delay_s,
            options.head_s,
            options.upload_s,
        )

    @property
    def ready_s(self) -> float:
        """When the device has the decision: at once under `paper`."""
        if self.timing == "paper":
            return self.task.arrival_s
        return equations.decided(self.now_s, self.task.arrival_s, self.network.decision_s)

    def feasible(self, finish_s: FloatArray) -> BoolArray:
        """Which of the predicted finishes meet the deadline."""
        return equations.on_time(finish_s, self.task.deadline_s)
