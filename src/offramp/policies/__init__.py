"""Online policies: `decide(observation) -> Decision`, one file each, named in one table."""

from __future__ import annotations

from pathlib import Path

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

TRAINED = frozenset({"ddqn", "ddqn-paper"})
"""Those that read a file of trained weights."""

__all__ = [
    "POLICIES",
    "TRAINED",
    "Context",
    "Live",
    "NamedPolicy",
    "Policy",
    "check_policy",
    "choose",
    "make_policy",
    "notice_of",
]


def make_policy(name: str, context: Context) -> Policy:
    """The policy of that name. Raises OfframpError if there is none, or if the context lacks what it needs."""
    check_policy(name, context.policy_file)
    return POLICIES[name].create(context)


def check_policy(name: str, policy_file: Path | None) -> None:
    """Raises OfframpError if there is no policy of that name, or if it reads no file and one is named."""
    if name not in POLICIES:
        raise OfframpError("policy", name, f"one of {', '.join(sorted(POLICIES))}", "choose one of these")
    if policy_file is not None and name not in TRAINED:
        trained = " or ".join(sorted(TRAINED))
        raise OfframpError(
            "policy-file",
            str(policy_file),
            f"only with {trained}, not {name}",
            "name its policy with --policy",
        )
