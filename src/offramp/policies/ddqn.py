"""`ddqn`: one network for a family of scenarios, which values what a choice leaves behind."""

from __future__ import annotations

import logging
from importlib.resources import files
from typing import TYPE_CHECKING, Self

import numpy as np

from offramp.errors import OfframpError
from offramp.observation import Backlog, Observation
from offramp.policies.base import Context
from offramp.policies.greedy import Myopic
from offramp.policies.network_file import PolicyFile, parse_policy, read_policy
from offramp.task import DROP, Decision, Task

if TYPE_CHECKING:
    from offramp.policies.ddqn_kernels import Tables
    from offramp.policies.outlook import Demand

_log = logging.getLogger(__name__)

BUNDLED = "ddqn.safetensors"

FIRST_LOOK = 12
"""Tasks that must be seen before an unknown demand is estimated; until then `myopic` decides."""

LAST_LOOK = 1536
"""An estimate is made again at twice the tasks of the last one, up to this many."""


class Ddqn:
    """Greatest gain plus discounted value of the afterstate, among options that finish in time and dropping.

    The network reads the lags of all devices and the edge through tables of what tasks to come could earn, so it
    serves any coefficients, rates, links and numbers of devices within the ranges that its file states.

    Attributes:
        notice: why `myopic` decides in the network's place; None if the network decides, or has yet to see tasks.
        view, layers, discount: what it goes by: the outlook (None while `myopic` decides), and the network.
    """

    def __init__(self, policy: PolicyFile, context: Context) -> None:
        from offramp.policies import ddqn_kernels as kernels
        from offramp.policies import outlook

        hidden = policy.arrays["first_bias"].shape[0] if "first_bias" in policy.arrays else 0
        features = kernels.AFTERSTATE + outlook.SCENARIO
        policy.expect("ddqn", ddqn_shapes(features, hidden, outlook.SCENARIO))
        self.notice: str | None = None
        self._kernels, self._outlook = kernels, outlook
        self.discount = policy.header.discount
        self._policy, self._system = policy, context.system
        self._named = context.policy_file is not None
        self.layers = kernels.Layers(
            *(policy.arrays[name].astype(np.float64) for name in kernels.Layers._fields)
        )
        self._myopic = Myopic()
        self._seen: list[Task] = []
        self._next_look = 0
        self.view: Tables | None = None
        if context.system.devices > policy.header.devices:
            self._leave("devices", context.system.devices, f"the network knows up to {policy.header.devices}")
        elif context.scenario is None:
            self._next_look = FIRST_LOOK
        else:
            self._look(outlook.demand_of(context.scenario))

    @classmethod
    def create(cls, context: Context) -> Self:
        """The network of the context's file, or the bundled one. OfframpError if a named file does not fit."""
        if context.policy_file is not None:
            return cls(read_policy(context.policy_file), context)
        data = files("offramp").joinpath("bundled", BUNDLED).read_bytes()
        return cls(parse_policy(data, f"bundled {BUNDLED}"), context)

    def decide(self, observation: Observation) -> Decision:
        """See the class. OfframpError for a NaN in the state."""
        if self._next_look:
            self._learn_of(observation.task)
        if self.view is None:
            return self._myopic.decide(observation)
        return self._choose(self.view, observation)

    def _choose(self, view: Tables, observation: Observation) -> Decision:
        options, backlog, task = observation.options, observation.backlog, observation.task
        timeline = observation.timeline()
        release_s = timeline.finish_s
        edge_free_s = backlog.edge_free_s[-1]
        if observation.timing == "network":
            release_s = self._kernels.edge_releases(
                options.local, float(edge_free_s), timeline.edge_start_s, options.tail_s
            )
        row = self._kernels.best_row(
            view,
            self.layers,
            self.discount,
            observation.now_s,
            task.deadline_s,
            task.device,
            backlog.device_free_s,
            float(edge_free_s),
            timeline.send_s,
            release_s,
            timeline.finish_s,
            observation.expected_gain,
        )
        if row == self._kernels.BAD_STATE:
            raise OfframpError("backlog", "NaN", "must be instants in seconds", "correct the state")
        return DROP if row < 0 else options.decision(row)

    def _learn_of(self, task: Task) -> None:
        self._seen.append(task)
        if len(self._seen) < self._next_look:
            return
        self._next_look = 2 * self._next_look if 2 * self._next_look <= LAST_LOOK else 0
        self._look(self._outlook.demand_seen(self._seen))

    def _look(self, demand: Demand) -> None:
        """Describe the system under a demand, unless that lies outside what the network was trained on."""
        view = self._outlook.look_out(self._system, demand)
        low, high = self._policy.arrays["low"], self._policy.arrays["high"]
        slack = 0.1 * (high - low) + 1e-6
        outside = np.flatnonzero((view.features < low - slack) | (view.features > high + slack))
        if len(outside):
            place = int(outside[0])
            name = self._outlook.FEATURE_NAMES[place]
            self._leave(
                name, float(view.features[place]), f"the network knows {low[place]:.3g} to {high[place]:.3g}"
            )
        else:
            self.view, self.notice = view, None
            self._warm_up(view, demand)

    def _warm_up(self, view: Tables, demand: Demand) -> None:
        """Compile or load the loops now, so that the first decision does not wait for that."""
        size, budget_s = demand.sizes[0], float(demand.budget_s[0])
        idle_s = np.full(self._system.devices, -np.inf)
        backlog = Backlog(idle_s, idle_s.copy(), np.empty(0), np.full(1, -np.inf))
        self._choose(
            view, Observation(Task(0.0, size, budget_s, 0), 0.0, self._system.options(0, size), backlog)
        )

    def _leave(self, field: str, value: object, allowed: str) -> None:
        """The scenario is outside the family: `myopic` takes over, or a file that the user named is refused.

        A demand that is only estimated refuses nothing: the next look may find it inside.
        """
        if self._named and not self._next_look:
            raise OfframpError(
                f"{self._policy.source}: {field}", value, allowed, "train a policy for this scenario"
            )
        self.view = None
        self.notice = f"{field} = {value}: {allowed}"
        _log.warning("ddqn: %s; `myopic` decides in its place", self.notice)


def ddqn_shapes(features: int, hidden: int, scenario: int) -> dict[str, tuple[int, ...]]:
    """The arrays of a policy file of this algorithm."""
    return {
        "first": (features, hidden),
        "first_bias": (hidden,),
        "second": (hidden, hidden),
        "second_bias": (hidden,),
        "out": (hidden,),
        "low": (scenario,),
        "high": (scenario,),
    }
