"""`serial-dp` against the paper's listing, which lives here as its judge."""

from __future__ import annotations

import numpy as np
import pytest
from coefficients import four_exits
from drawn import TICK_S, build, streams
from hypothesis import given, settings
from hypothesis import strategies as st
from judges import listing, recomputed_gain

from offramp.errors import OfframpError
from offramp.instance import Instance, draw_instance
from offramp.options import Gain, System
from offramp.scenario import Scenario
from offramp.schedule import Schedule
from offramp.solvers import Exact, SerialDp
from offramp.task import Task


def pairs(schedule: Schedule) -> list[tuple[int, int]]:
    return [(row.exit, row.cut) for row in schedule.tasks]


@given(instance=streams(), slots=st.sampled_from([1, 2, 5]))
@settings(max_examples=200)
def test_finds_what_the_printed_listing_finds(instance: Instance, slots: int) -> None:
    schedule = SerialDp(slots * TICK_S).solve(instance)

    assert schedule.gain == pytest.approx(listing(instance, slots * TICK_S), abs=1e-9)


@given(instance=streams(), slot_s=st.sampled_from([TICK_S, 0.0007, 0.0031]))
@settings(max_examples=100)
def test_its_schedule_recomputes_and_every_served_task_is_on_time(instance: Instance, slot_s: float) -> None:
    schedule = SerialDp(slot_s).solve(instance)

    assert schedule.gain == pytest.approx(recomputed_gain(instance, pairs(schedule)), abs=1e-9)
    assert all(row.on_time == (row.exit > 0) for row in schedule.tasks)
    assert schedule.status == "feasible"
    assert schedule.upper_bound is None


def test_a_later_task_with_an_earlier_deadline_keeps_what_was_possible_without_it() -> None:
    """The first task has a second, the second 30 ms: in turn the second comes too late once the first is served. Past
    30 ms the listing sets no G for the second task; what the first earned must not be lost there.
    """
    system = System(four_exits(), (10.0,), (125_000.0,), Gain())
    tasks = (Task(0.0, 1, 1.0, 0), Task(0.0, 1, 0.03, 0), Task(0.5, 1, 1.0, 0))
    instance = Instance(system, tasks)

    schedule = SerialDp(0.005).solve(instance)

    assert schedule.gain == pytest.approx(listing(instance, 0.005), abs=1e-9)
    assert schedule.tasks[2].on_time


def test_a_finer_slot_never_finds_less_and_the_optimum_never_less_than_that() -> None:
    scenario = Scenario().changed(tasks=60, p=0.3)
    for seed in range(3):
        instance = draw_instance(scenario, four_exits(), np.random.default_rng(seed))
        gains = [SerialDp(scenario.slot_s / parts).solve(instance).gain for parts in (1, 2, 4, 8)]
        assert gains == sorted(gains)
        assert gains[-1] <= Exact().solve(instance).gain + 1e-9


def test_without_a_slot_it_takes_the_scenarios() -> None:
    scenario = Scenario().changed(tasks=50, slot_s=0.02)
    instance = draw_instance(scenario, four_exits(), np.random.default_rng(0))

    assert pairs(SerialDp().solve(instance)) == pairs(SerialDp(0.02).solve(instance))


@pytest.mark.parametrize("slot_s", [0.0, -1.0, float("nan"), float("inf")])
def test_a_slot_must_be_a_length(slot_s: float) -> None:
    with pytest.raises(OfframpError, match="slot-s"):
        SerialDp(slot_s)


def test_a_slot_too_short_for_the_memory_is_refused() -> None:
    instance = build(np.random.default_rng(0), 40, 2, 2, 2, 10)

    with pytest.raises(OfframpError, match="longer slot"):
        SerialDp(1e-12).solve(instance)
