"""Online policies: `decide(observation) -> Decision`, one file each, named in one table."""

from __future__ import annotations

from offramp.errors import OfframpError
from offramp.policies.base import Context, Live, NamedPolicy, Policy, choose, notice_of
from offramp.policies.chance import Random
from offramp.policies.competitors import Edgent, Neurosurgeon
from offramp.policies.ddqn import Ddqn
from offramp.policies.ddqn_paper import DdqnPaper
from offramp.policies.greedy import DeviceOnly, EdgeOnly, Greedy, Myopic
from offramp.policies.lookahead import Lookahead
from offramp.policies.planner import Planner

POLICIES: dict[str, type[NamedPolicy]] = {
    "random": Random,
    "greedy": Greedy,
    "myopic": Myopic,
    "device-only": DeviceOnly,
    "edge-only": EdgeOnly,
    "edgent": Edgent,
    "neurosurgeon": Neurosurgeon,
    "planner": Planner,
    "lookahead": Lookahead,
    "ddqn": Ddqn,
    "ddqn-paper": DdqnPaper,
}

__all__ = ["POLICIES", "Context", "Live", "NamedPolicy", "Policy", "choose", "make_policy", "notice_of"]


def make_policy(name: str, context: Context) -> Policy:
    """The policy of that name. Raises OfframpError if there is none, or if the context lacks what it needs."""
    if name not in POLICIES:
        raise OfframpError("policy", name, f"one of {', '.join(sorted(POLICIES))}", "choose one of these")
    return POLICIES[name].create(context)
