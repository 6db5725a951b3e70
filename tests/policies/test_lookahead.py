"""Looking ahead: a future against enumeration, and what decisions make of many."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.instance import Instance, draw_instance, system_of
from offramp.observation import TIMINGS, Timing
from offramp.options import System
from offramp.policies import Context, make_policy
from offramp.policies.lookahead import Lookahead
from offramp.policies.planning.futures import Prices, draw_futures
from offramp.policies.planning.problem import Terms
from offramp.policies.planning.traffic import Traffic, scenario_traffic
from offramp.profile import ExitCoefficients
from offramp.scenario import Scenario
from offramp.simulator import simulate, simulate_named
from offramp.state import paper_schedule
from offramp.streams import ListedSizes
from offramp.task import Task
from strategies import instances

pytest.importorskip("numba")

FREE = Prices(0.0, 0.0, 0.0)


def best_of_all(instance: Instance) -> float:
    """The most that any choice of options earns, by trying all of them under `paper`."""
    from offramp.task import DROP, Decision

    every = []
    for task in instance.tasks:
        options = instance.system.options(task.device, task.size)
        every.append(
            [DROP, *(Decision(int(e), int(c)) for e, c in zip(options.exit, options.cut, strict=True))]
        )
    return max(paper_schedule(instance, choice).gain for choice in product(*every))


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15)
def test_with_labels_enough_a_future_is_worth_its_optimum(seed: int) -> None:
    from offramp.policies.planning.future_kernels import candidate_values

    rng = np.random.default_rng(seed)
    rows = [np.column_stack([rng.uniform(0, 0.02, 2), np.zeros(2)]) for _ in range(2)]
    exits = tuple(
        ExitCoefficients(accuracy, *rows, np.array([[2000.0, 0.0], [1000.0, 0.0], [40.0, 0.0]]))
        for accuracy in (0.6, 0.9)
    )
    system = System(exits, (1.0, 2.0), (125_000.0, 60_000.0))
    scenario = Scenario(devices=2, sizes=ListedSizes(values=(1, 2))).changed(k=4, p=0.5)
    futures, options = draw_futures(system, scenario_traffic(scenario), "paper", 1, rng)
    few = futures._replace(
        arrival_s=futures.arrival_s[:, :4],
        budget_s=futures.budget_s[:, :4],
        group=futures.group[:, :4],
        seat=futures.seat[:, :4],
    )
    tasks = tuple(
        Task(
            float(few.arrival_s[0, n]),
            int(few.group[0, n]) % 2 + 1,
            float(few.budget_s[0, n]),
            int(few.who[0, few.seat[0, n]]),
        )
        for n in range(4)
    )
    idle = np.full((1, 3), -1.0)
    found = candidate_values(
        True, Terms(0, 0, 0, 1), options, few, 0, 1, FREE, 4096, 0, np.full(2, -1.0), np.full(2, -1.0), idle
    )
    assert found[0] == pytest.approx(best_of_all(Instance(system, tasks)), abs=1e-9)


@pytest.mark.parametrize("timing", TIMINGS)
@pytest.mark.parametrize(("k", "p", "devices"), [(3, 0.3, 3), (3, 0.3, 40)])
def test_looking_ahead_earns_more_than_myopic_where_tasks_crowd(
    four_exits: tuple[ExitCoefficients, ...], k: float, p: float, devices: int, timing: Timing
) -> None:
    scenario = Scenario(devices=devices).changed(k=k, p=p)
    instance = draw_instance(scenario, four_exits, np.random.default_rng(3))
    ahead, myopic = (
        simulate_named(instance, name, timing, np.random.default_rng(0)).gain
        for name in ("lookahead", "myopic")
    )
    # With forty devices hardly anything waits: there is next to nothing to win, and next to nothing may be lost.
    assert ahead > (1.05 if devices == 3 else 0.99) * myopic


@given(instances())
@settings(max_examples=10)
def test_any_system_is_decided_within_its_deadlines_and_again_alike(instance: Instance) -> None:
    scenario = Scenario(devices=instance.system.devices)
    for timing in TIMINGS:
        context = [Context(instance.system, timing, scenario, np.random.default_rng(1)) for _ in range(2)]
        first, second = (simulate(instance, make_policy("lookahead", one), timing) for one in context)
        assert first.to_json() == second.to_json()
        if timing == "paper":
            assert all(row.on_time for row in first.tasks if row.exit)


def test_a_clock_that_has_run_out_leaves_the_least_number_of_futures(
    four_exits: tuple[ExitCoefficients, ...],
) -> None:
    scenario = Scenario().changed(k=3, p=0.3)
    instance = draw_instance(scenario, four_exits, np.random.default_rng(0))
    ticks = iter(range(100_000))
    played = []

    class Counting(Lookahead):
        def _play(self, *arguments: object) -> np.ndarray:  # type: ignore[override,type-arg]
            played.append(arguments[2])
            return super()._play(*arguments)  # type: ignore[arg-type]

    policy = Counting.create(Context(instance.system, "paper", scenario))
    played.clear()
    policy.go_live(ThreadPoolExecutor(1), lambda: float(next(ticks)))
    schedule = simulate(instance, policy)
    decided = sum(1 for row in schedule.tasks if row.exit)
    assert set(played) == {8}
    assert len(played) <= len(schedule.tasks)
    assert decided > 50


def test_without_a_scenario_it_learns_the_traffic(four_exits: tuple[ExitCoefficients, ...]) -> None:
    scenario = Scenario(tasks=300).changed(k=3, p=0.3)
    known = draw_instance(scenario, four_exits, np.random.default_rng(5))
    unknown = Instance(known.system, known.tasks)
    ahead, myopic = (
        simulate_named(unknown, name, "paper", np.random.default_rng(0)).gain
        for name in ("lookahead", "myopic")
    )
    assert ahead > 1.1 * myopic


def test_futures_follow_their_traffic() -> None:
    scenario = Scenario(devices=3).changed(p=0.2)
    traffic: Traffic = scenario_traffic(scenario)
    exits = (ExitCoefficients(0.7, np.ones((1, 2)), np.ones((1, 2)), np.ones((2, 2))),)
    system = system_of(scenario, exits)
    futures, options = draw_futures(system, traffic, "paper", 3000, np.random.default_rng(0))
    assert float(futures.arrival_s[:, 0].mean()) == pytest.approx(scenario.slot_s / 0.2, rel=0.05)
    assert float(futures.budget_s.mean()) == pytest.approx(
        sum(one.share * one.budget_s for one in traffic.classes), rel=0.02
    )
    who = np.take_along_axis(futures.who, futures.seat, axis=1)
    assert np.bincount(who.ravel()) / who.size == pytest.approx(np.full(3, 1 / 3), abs=0.02)
    assert int(futures.group.max()) + 2 == len(options.start)
