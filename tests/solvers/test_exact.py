"""`exact` against brute force, an integer program and its own bounds."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from coefficients import four_exits
from drawn import TICK_S, build, streams, tiny_instances
from hypothesis import given, settings
from hypothesis import strategies as st
from judges import brute_force, cp_sat, recomputed_gain

from offramp.errors import OfframpError
from offramp.instance import Instance, draw_instance
from offramp.options import Gain, System
from offramp.profile import ExitCoefficients
from offramp.scenario import Scenario
from offramp.schedule import Schedule
from offramp.simulator import simulate_named
from offramp.solvers import Exact, SerialDp
from offramp.solvers.layout import lay_out
from offramp.state import paper_schedule
from offramp.task import DROP, Decision, Task


def check(instance: Instance, schedule: Schedule) -> None:
    """What holds of every answer: it recomputes, nothing is late, and its bound is one."""
    decisions = [(row.exit, row.cut) for row in schedule.tasks]
    assert schedule.gain == pytest.approx(recomputed_gain(instance, decisions), abs=1e-9)
    assert all(row.on_time == (row.exit > 0) for row in schedule.tasks)
    assert schedule.upper_bound is not None
    assert schedule.upper_bound >= schedule.gain
    assert (schedule.status == "optimal") == (schedule.upper_bound == schedule.gain)


@given(instance=tiny_instances())
@settings(max_examples=500)
def test_equals_brute_force(instance: Instance) -> None:
    schedule = Exact().solve(instance)

    check(instance, schedule)
    assert schedule.status == "optimal"
    assert schedule.gain == pytest.approx(brute_force(instance), abs=1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_equals_an_integer_program(seed: int) -> None:
    rng = np.random.default_rng(seed)
    instance = build(
        rng,
        int(rng.integers(20, 41)),
        int(rng.integers(1, 6)),
        int(rng.integers(1, 7)),
        3,
        int(rng.integers(5, 21)),
    )
    proof = cp_sat(instance, TICK_S)
    assert proof.optimal, "the judge did not finish"

    assert Exact().solve(instance).gain == pytest.approx(recomputed_gain(instance, proof.decisions), abs=1e-9)


@given(instance=streams(), max_labels=st.sampled_from([1, 2, 5, 30]))
@settings(max_examples=200)
def test_the_bounded_mode_encloses_the_optimum(instance: Instance, max_labels: int) -> None:
    optimum = Exact().solve(instance).gain

    schedule = Exact(max_labels).solve(instance)

    check(instance, schedule)
    assert schedule.gain <= optimum + 1e-9
    assert schedule.upper_bound is not None
    assert schedule.upper_bound >= optimum - 1e-9


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("k", [1, 3, 6])
def test_no_policy_exceeds_the_optimum(k: float, p: float) -> None:
    scenario = Scenario().changed(k=k, p=p, tasks=60)
    for seed in range(3):
        instance = draw_instance(scenario, four_exits(), np.random.default_rng(seed))
        optimum = Exact().solve(instance)
        check(instance, optimum)
        for policy in ("random", "greedy", "myopic", "device-only", "edge-only"):
            gain = simulate_named(instance, policy, "paper", np.random.default_rng(seed)).gain
            assert gain <= optimum.gain + 1e-9
        assert SerialDp().solve(instance).gain <= optimum.gain + 1e-9


def test_a_long_heavy_stream_is_bounded_within_a_percent() -> None:
    scenario = Scenario().changed(k=6, p=0.5, devices=6, tasks=300)
    instance = draw_instance(scenario, four_exits(), np.random.default_rng(0))

    schedule = Exact(64).solve(instance)

    check(instance, schedule)
    assert schedule.upper_bound is not None
    assert schedule.upper_bound <= 1.01 * schedule.gain


@given(instance=streams(), seed=st.integers(0, 1000))
@settings(max_examples=100)
def test_the_layout_is_the_states_own(instance: Instance, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tables = [instance.system.options(task.device, task.size) for task in instance.tasks]
    rows = np.array([rng.integers(-1, len(table)) for table in tables])
    decisions = [
        DROP if row < 0 else Decision(int(table.exit[row]), int(table.cut[row]))
        for table, row in zip(tables, rows, strict=True)
    ]

    laid = lay_out(instance.tasks, tables, np.arange(len(tables)), rows, instance.system.devices)

    assert laid == paper_schedule(instance, decisions).tasks


def test_the_same_instance_gives_the_same_schedule() -> None:
    instance = draw_instance(Scenario().changed(k=3, p=0.5, tasks=80), four_exits(), np.random.default_rng(5))

    assert Exact(16).solve(instance).tasks == Exact(16).solve(instance).tasks


def hand_worked() -> Instance:
    """Two devices, one exit of two layers, all times in seconds at size 1.

    Layer 1 takes 4 on a device and 6 on the edge, layer 2 takes 9 on a device and 3 on the edge; the input would
    take 10 to upload, what leaves layer 1 takes 1, the answer nothing. So cut 1 takes 4 + 1 + 3 = 8 on an idle system,
    the others 19 and 13.
    """
    exit = ExitCoefficients(
        accuracy=0.9,
        device_s=np.array([[0.0, 4.0], [0.0, 9.0]]),
        edge_s=np.array([[0.0, 6.0], [0.0, 3.0]]),
        output_bytes=np.array([[0.0, 10.0], [0.0, 1.0], [0.0, 0.0]]),
    )
    tasks = (Task(0.0, 1, 8.0, 0), Task(1.0, 1, 10.0, 1))
    return Instance(System((exit,), (1.0, 1.0), (1.0, 1.0), Gain(accuracy_weight=0.0)), tasks)


def test_where_algorithm_1_loses_to_greedy() -> None:
    """The documentation's example. In turn the second task would start at 8 and end at 16, past its deadline 11. Under
    Section II-B its head runs on its own device from 1 to 5, the edge takes it at 8 and is done at 11.
    """
    instance = hand_worked()

    assert SerialDp(1.0).solve(instance).gain == pytest.approx(1.0)
    assert simulate_named(instance, "greedy", "paper", np.random.default_rng(0)).gain == pytest.approx(2.0)
    optimum = Exact().solve(instance)
    assert optimum.gain == pytest.approx(2.0)
    assert [
        (row.cut, row.device_start_s, row.send_s, row.edge_start_s, row.finish_s) for row in optimum.tasks
    ] == [
        (1, 0.0, 4.0, 5.0, 8.0),
        (1, 1.0, 5.0, 8.0, 11.0),
    ]


def test_tasks_that_no_option_serves_are_dropped() -> None:
    instance = Instance(hand_worked().system, (Task(0.0, 1, 0.0, 0), Task(2.0, 1, 7.9, 1)))

    schedule = Exact().solve(instance)

    check(instance, schedule)
    assert schedule.gain == 0
    assert schedule.status == "optimal"


@pytest.mark.parametrize("max_labels", [0, -3, 1 << 17])
def test_a_limit_must_be_in_range(max_labels: int) -> None:
    with pytest.raises(OfframpError, match="max-labels"):
        Exact(max_labels)


def test_too_much_for_a_proof_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    instance = draw_instance(
        Scenario().changed(k=6, p=0.5, devices=6, tasks=200), four_exits(), np.random.default_rng(0)
    )
    monkeypatch.setattr("offramp.solvers.exact._ROUNDS", (4,))
    monkeypatch.setattr("offramp.solvers.exact._QUICK_LABELS", 4)

    with pytest.raises(OfframpError, match="--max-labels"):
        Exact().solve(instance)


def test_a_history_that_is_compacted_on_the_way_gives_the_same_schedule(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    instance = draw_instance(
        Scenario().changed(k=3, p=0.3, tasks=150), four_exits(), np.random.default_rng(1)
    )
    before = Exact(32).solve(instance)
    monkeypatch.setattr("offramp.solvers.labels._FIRST_HISTORY", 100)

    after = Exact(32).solve(instance)

    assert after.tasks == before.tasks
    assert after.upper_bound == before.upper_bound


def test_importing_the_solvers_does_not_load_the_compiler() -> None:
    code = "import offramp, offramp.solvers, sys; print('numba' in sys.modules)"

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout.strip() == "False"


def test_without_numba_the_error_names_the_extra() -> None:
    code = "import sys; sys.modules['numba'] = None\nfrom offramp.solvers.compiled import compiled\n"

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode != 0
    assert "offramp[research]" in done.stderr
