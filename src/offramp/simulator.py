"""A policy over a stream of tasks."""

from __future__ import annotations

import numpy as np

from offramp.instance import Instance
from offramp.linked_state import Replay
from offramp.observation import Timing
from offramp.policies import Context, Policy, make_policy, notice_of
from offramp.schedule import Schedule
from offramp.state import make_state


def simulate(
    instance: Instance, policy: Policy, timing: Timing = "paper", replay: Replay | None = None
) -> Schedule:
    """Show a policy the tasks one by one and lay its decisions out in time; `replay` is for `network` only.

    The schedule is `feasible` and proves no bound; `solve_s` is 0, so that one seed gives the same bytes.
    ValueError if the policy returns what is not an option.
    """
    state = make_state(instance.system, timing) if replay is None else replay.state(instance.system)
    for task in instance.tasks:
        observation = state.observe(task)
        state.commit(observation, policy.decide(observation))
    rows = tuple(state.rows())
    gain = sum(row.gain for row in rows)
    return Schedule(rows, gain, upper_bound=None, status="feasible", notice=notice_of(policy))


def simulate_named(
    instance: Instance, name: str, timing: Timing, rng: np.random.Generator, replay: Replay | None = None
) -> Schedule:
    """`simulate` a policy by its name, made from what the instance lets it know."""
    context = Context(instance.system, timing, instance.scenario, rng)
    return simulate(instance, make_policy(name, context), timing, replay)
