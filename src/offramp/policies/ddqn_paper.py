"""`ddqn-paper`: the network of Table I on the state of Section III-B, guarded."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from importlib.util import find_spec
from typing import Self

import numpy as np

from offramp.cache import cache_folder
from offramp.equations import BoolArray
from offramp.errors import OfframpError
from offramp.observation import Observation
from offramp.options import System
from offramp.policies.base import Context
from offramp.policies.greedy import Myopic
from offramp.policies.network_file import PolicyFile, parse_policy, read_policy
from offramp.scenario import Scenario
from offramp.task import DROP, Decision
from offramp.validation import write_atomically

_log = logging.getLogger(__name__)


class DdqnPaper:
    """The allowed action of the greatest Q in (D, budget left after the device's backlog, overlap at the edge).

    The paper's state does not hold k, p or N, so a network knows one scenario. Without a file that the user names, the
    network is learned when the policy is made (about a second) and kept by content in the user's cache folder.

    Attributes:
        notice: why something else decides in the network's place; None if the network decides.
        network, scale: what it goes by where the network decides.
    """

    def __init__(self, policy: PolicyFile | None, actions: int, notice: str | None) -> None:
        self.notice = notice
        self._myopic = Myopic()
        if policy is None:
            _log.warning("ddqn-paper: %s; `myopic` decides in its place", notice)
            return
        from offramp.policies import ddqn_paper_kernels as kernels
        from offramp.policies import stream_kernels
        from offramp.policies.ddqn_paper_learning import shapes

        hidden = policy.arrays["first_bias"].shape[0] if "first_bias" in policy.arrays else 0
        policy.expect("ddqn-paper", shapes(actions, hidden) | {"scale": (2,)})
        self._kernels, self._observe = kernels, stream_kernels.observe
        self.network = kernels.Network(
            *(policy.arrays[name].astype(np.float64) for name in shapes(actions, hidden))
        )
        self.scale = policy.arrays["scale"]
        self._state = np.empty(stream_kernels.STATE)
        self._low, self._high = np.empty(hidden), np.empty(hidden)
        # Compiles or loads the loops now, so that the first decision does not wait for that.
        self._choose(1.0, 1.0, 0.0, 0.0, np.ones(actions, np.bool_))

    @classmethod
    def create(cls, context: Context) -> Self:
        """The network of the context's file or scenario; OfframpError if the file is of another scenario."""
        actions = _actions(context.system)
        if context.policy_file is not None:
            named = read_policy(context.policy_file)
            _refuse_other_family(named, context)
            return cls(named, actions, None)
        if context.scenario is None:
            return cls(None, actions, "the tasks' scenario is not known, and no policy file is given")
        if context.scenario.devices != context.system.devices:
            return cls(None, actions, "the scenario and the system differ in their number of devices")
        policy, notice = _learned(context.system, context.scenario)
        return cls(policy, actions, notice)

    @classmethod
    def from_bytes(cls, content: bytes, context: Context) -> Self:
        """The policy of a file in memory. OfframpError if it is damaged or of another network."""
        return cls(parse_policy(content, "policy"), _actions(context.system), None)

    def decide(self, observation: Observation) -> Decision:
        """Greatest Q among the options predicted to finish in time and dropping. OfframpError for a NaN state."""
        if self.notice is not None:
            return self._myopic.decide(observation)
        task, backlog = observation.task, observation.backlog
        own_s = float(backlog.device_free_s[task.device]) - observation.now_s
        edge_s = float(backlog.edge_free_s[-1]) - observation.now_s
        if own_s != own_s or edge_s != edge_s:
            raise OfframpError("backlog", "NaN", "must be instants in seconds", "correct the state")
        fits = observation.feasible(observation.timeline().finish_s)
        allowed = np.concatenate(([True], fits))
        action = self._choose(float(task.size), task.budget_s, own_s, edge_s, allowed)
        if action == 0:
            return DROP
        options = observation.options
        return options.decision(action - 1)

    def _choose(self, size: float, budget_s: float, own_s: float, edge_s: float, allowed: BoolArray) -> int:
        """The allowed action of the greatest Q."""
        self._observe(self._state, size, budget_s, own_s, edge_s, self.scale)
        self._kernels.hidden_layers(self.network, self._state, self._low, self._high)
        return self._kernels.best_action(self.network, self._high, allowed)


def _actions(system: System) -> int:
    """Dropping, and every option."""
    return sum(exit.layers + 1 + len(exit.codecs) for exit in system.exits) + 1


def _refuse_other_family(policy: PolicyFile, context: Context) -> None:
    header = policy.header
    if context.system.devices > header.devices:
        raise OfframpError(
            f"{policy.source}: devices",
            context.system.devices,
            f"the network knows {header.devices}",
            "train it for this scenario",
        )
    if header.algorithm != "ddqn-paper":
        return
    from offramp.policies.ddqn_paper_learning import family_of, options_identity

    system, scenario = context.system, context.scenario
    family = header.family or ""
    if scenario is None:
        # What is asked is not known; at least the options must be those that the network was learned for.
        wanted, found = options_identity(system), family.partition("-")[0]
    else:
        wanted, found = family_of(system, scenario), family
    if found != wanted:
        raise OfframpError(
            f"{policy.source}: family",
            found,
            f"must be {wanted}, that of the scenario and its network",
            "train it for this scenario with `offramp train-policy`",
        )


def _learned(system: System, scenario: Scenario) -> tuple[PolicyFile | None, str | None]:
    """(the scenario's network, None), from the cache or learned now; (None, why) where that cannot be."""
    from offramp.policies.ddqn_paper_learning import PaperLearner, PaperSettings, family_of

    settings = PaperSettings()
    identity = hashlib.sha256(f"{family_of(system, scenario)} {settings}".encode()).hexdigest()
    path = cache_folder("policies") / f"ddqn-paper-{identity[:32]}.safetensors"
    try:
        return read_policy(path), None
    except OfframpError:
        # Missing, or of another version, or damaged: learned again below.
        pass
    if find_spec("numba") is None:
        return None, "learning a network for this scenario needs numba (pip install 'offramp[research]')"
    learner = PaperLearner(system, scenario, settings, seed=0)
    while not learner.finished:
        learner.advance()
    content = learner.to_bytes()
    with contextlib.suppress(OSError, OfframpError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    return parse_policy(content, str(path)), None
