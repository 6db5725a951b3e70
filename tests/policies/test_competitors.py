"""Edgent and Neurosurgeon against their papers' listings, written out as loops."""

from __future__ import annotations

import pytest
from hypothesis import given

from offramp.instance import Instance
from offramp.observation import TIMINGS
from offramp.policies import Context, make_policy
from offramp.simulator import simulate
from offramp.state import make_state
from strategies import instances


def latency_s(instance: Instance, number: int, exit: int, cut: int) -> float:
    task, system = instance.tasks[number], instance.system
    table = system.exits[exit - 1]
    slowdown, bandwidth = system.kind(task.device)
    device = sum(slope * task.size + base for slope, base in table.device_s[:cut]) * slowdown
    edge = sum(slope * task.size + base for slope, base in table.edge_s[cut:])
    slope, base = table.output_bytes[cut]
    return float(device + (slope * task.size + base) / bandwidth + edge)


@given(instances())
def test_edgent_takes_the_deepest_exit_whose_fastest_cut_fits(instance: Instance) -> None:
    policy = make_policy("edgent", Context(instance.system))
    state = make_state(instance.system, "paper")
    for number, task in enumerate(instance.tasks):
        observation = state.observe(task)
        decision = policy.decide(observation)
        expected = 0
        for exit in range(len(instance.system.exits), 0, -1):
            layers = instance.system.exits[exit - 1].layers
            if (
                min(latency_s(instance, number, exit, cut) for cut in range(layers + 1))
                <= task.budget_s + 1e-9
            ):
                expected = exit
                break
        assert decision.exit == expected
        if expected:
            chosen_s = latency_s(instance, number, expected, decision.cut)
            layers = instance.system.exits[expected - 1].layers
            fastest_s = min(latency_s(instance, number, expected, cut) for cut in range(layers + 1))
            assert chosen_s == pytest.approx(fastest_s, abs=1e-12)
        state.commit(observation, decision)


@given(instances())
def test_neurosurgeon_runs_the_whole_network_at_its_fastest_cut(instance: Instance) -> None:
    for timing in TIMINGS:
        schedule = simulate(instance, make_policy("neurosurgeon", Context(instance.system, timing)), timing)
        deepest = len(instance.system.exits)
        for number, row in enumerate(schedule.tasks):
            assert row.exit == deepest
            every_s = [
                latency_s(instance, number, deepest, cut)
                for cut in range(instance.system.exits[-1].layers + 1)
            ]
            assert every_s[row.cut] == pytest.approx(min(every_s), abs=1e-12)


@given(instances())
def test_neither_looks_at_the_backlog(instance: Instance) -> None:
    for name in ("edgent", "neurosurgeon"):
        policy = make_policy(name, Context(instance.system))
        idle = make_state(instance.system, "paper")
        busy = make_state(instance.system, "paper")
        for task in instance.tasks:
            seen = busy.observe(task)
            decision = policy.decide(seen)
            assert decision == policy.decide(idle.observe(task))
            busy.commit(seen, decision)
