"""The bound for `network` timing against everything that can be tried."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from coefficients import four_exits
from drawn import streams, tiny_instances
from hypothesis import given, settings
from hypothesis import strategies as st
from judges import choices

from offramp.errors import OfframpError
from offramp.instance import Instance, draw_instance
from offramp.options import Gain, NetworkTerms, System
from offramp.profile import ExitCoefficients
from offramp.scenario import Scenario
from offramp.simulator import simulate_named
from offramp.solvers import NetworkBound
from offramp.state import make_state
from offramp.task import DROP, Decision, Task

TERMS = st.builds(
    NetworkTerms,
    decision_s=st.sampled_from([0.0, 0.002, 0.01]),
    link_delay_s=st.sampled_from([0.0, 0.003]),
    answer_s=st.sampled_from([0.0, 0.001]),
    edge_workers=st.integers(1, 3),
    max_batch=st.integers(1, 3),
)


def with_terms(instance: Instance, network: NetworkTerms) -> Instance:
    system = instance.system
    return Instance(
        System(system.exits, system.device_slowdown, system.bandwidth_bytes_per_s, system.gain, network),
        instance.tasks,
    )


def gain_of(instance: Instance, decisions: tuple[Decision, ...]) -> float:
    state = make_state(instance.system, "network")
    for task, decision in zip(instance.tasks, decisions, strict=True):
        state.commit(state.observe(task), decision)
    return sum(row.gain for row in state.rows())


@given(instance=tiny_instances(), terms=TERMS)
@settings(max_examples=60)
def test_every_decision_for_every_task_stays_below(instance: Instance, terms: NetworkTerms) -> None:
    instance = with_terms(Instance(instance.system, instance.tasks[:3]), terms)
    table = [
        [DROP, *(Decision(c.exit, c.cut) for c in choices(instance, number))][:9]
        for number in range(len(instance.tasks))
    ]

    schedule = NetworkBound(rounds=5).solve(instance)

    best = max(gain_of(instance, decisions) for decisions in product(*table))
    assert schedule.upper_bound is not None
    assert best <= schedule.upper_bound + 1e-9


@given(instance=streams(), terms=TERMS, fastest=st.sampled_from([1.0, 0.5]))
@settings(max_examples=60)
def test_every_policy_stays_below(instance: Instance, terms: NetworkTerms, fastest: float) -> None:
    instance = with_terms(instance, terms)

    schedule = NetworkBound(fastest, rounds=10).solve(instance)

    assert schedule.upper_bound is not None
    assert schedule.gain <= schedule.upper_bound
    for policy in ("random", "greedy", "myopic"):
        gain = simulate_named(instance, policy, "network", np.random.default_rng(0)).gain
        assert gain <= schedule.upper_bound + 1e-9


def test_faster_hardware_than_predicted_stays_below_the_bound_for_it() -> None:
    """A run whose every duration was 0.7 of the predicted one is the same run on faster coefficients."""
    instance = draw_instance(Scenario().changed(p=0.3), four_exits(), np.random.default_rng(0))
    system = instance.system
    network = system.network
    faster = Instance(
        System(
            system.exits,
            tuple(0.7 * slowdown for slowdown in system.device_slowdown),
            tuple(bandwidth / 0.7 for bandwidth in system.bandwidth_bytes_per_s),
            system.gain,
            NetworkTerms(0.7 * network.decision_s, 0.0, 0.7 * network.answer_s, network.edge_workers),
        ),
        instance.tasks,
    )

    upper_bound = NetworkBound(fastest=0.7).solve(instance).upper_bound

    assert upper_bound is not None
    assert simulate_named(faster, "myopic", "network", np.random.default_rng(0)).gain <= upper_bound


def test_prices_lower_the_bound_where_the_edge_is_short() -> None:
    """Six tasks at once, each 0.1 s on the edge or hopeless on its device, due after 0.25 s: two can be served. Without
    a price each could alone; at a price the bound is what the windows of 0.125 s that they reach into hold.
    """
    exit = ExitCoefficients(
        0.9, np.array([[0.0, 10.0]]), np.array([[0.0, 0.1]]), np.array([[0.0, 100.0], [0.0, 100.0]])
    )
    network = NetworkTerms(decision_s=0.0, answer_s=0.0)
    system = System((exit,), (1.0,) * 6, (1e5,) * 6, Gain(0.0), network)
    instance = Instance(system, tuple(Task(0.0, 1, 0.25, device) for device in range(6)))

    free = NetworkBound(rounds=1).solve(instance)
    priced = NetworkBound(rounds=60).solve(instance)

    assert free.upper_bound == pytest.approx(6.0)
    assert priced.gain == pytest.approx(2.0)
    assert priced.upper_bound is not None
    assert 2.0 <= priced.upper_bound <= 3.9


@pytest.mark.parametrize("arguments", [{"fastest": 0.0}, {"fastest": 1.5}, {"rounds": 0}])
def test_options_out_of_range(arguments: dict[str, float]) -> None:
    with pytest.raises(OfframpError, match="must be"):
        NetworkBound(**arguments)  # type: ignore[arg-type]
