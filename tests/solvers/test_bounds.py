"""The parts of the label method: relaxations, guides and the scoring of states."""

from __future__ import annotations

import numpy as np
import pytest
from coefficients import four_exits
from drawn import streams, tiny_instances
from hypothesis import given, settings
from hypothesis import strategies as st
from judges import brute_force

from offramp.instance import Instance, draw_instance
from offramp.scenario import Scenario
from offramp.solvers import bounds, labels
from offramp.solvers.flat import flatten
from offramp.task import Task


@given(instance=streams(), steps=st.sampled_from([2, 4, 64]))
@settings(max_examples=150)
def test_a_relaxation_is_at_least_the_optimum_however_coarse(instance: Instance, steps: int) -> None:
    flat = flatten(instance.system, instance.tasks)
    if not len(flat.index):
        return
    optimum = labels.run_sweep(flat.tasks, labels.EXACT, 64, most_labels=1 << 16)

    relaxations = bounds.relax(flat.tasks, steps)

    assert labels.start_units(flat.tasks, relaxations) >= optimum.units


@given(instance=streams(), room=st.sampled_from([1, 3, 20]))
@settings(max_examples=150)
def test_a_guided_sweep_misses_no_better_schedule(instance: Instance, room: int) -> None:
    flat = flatten(instance.system, instance.tasks)
    if not len(flat.index):
        return
    tasks = flat.tasks
    optimum = labels.run_sweep(tasks, labels.EXACT, 64, most_labels=1 << 16).units
    relaxations = labels.relax(tasks)
    beat = optimum - 1

    joined = labels.run_sweep(
        tasks, labels.JOIN, room, relaxations=relaxations, beat_units=beat, history=False, make_guide=True
    )
    guided = labels.run_sweep(
        tasks,
        labels.EXACT,
        64,
        most_labels=1 << 16,
        relaxations=relaxations,
        guide=joined.guide,
        beat_units=beat,
    )

    assert joined.units >= optimum
    assert guided.units == optimum


@given(instance=tiny_instances())
@settings(max_examples=100)
def test_a_state_is_worth_what_a_task_that_causes_it_leaves(instance: Instance) -> None:
    """Scoring from an idle system is the optimum; a device or an edge that is busy for ever leaves nothing."""
    flat = flatten(instance.system, instance.tasks)
    devices = instance.system.devices
    busy = np.full(devices, np.inf)
    idle = np.full(devices, -np.inf)

    gain = labels.best_gain(
        flat, np.stack([idle, idle, busy]), np.array([-np.inf, np.inf, -np.inf]), max_labels=4096
    )

    assert gain[0] == pytest.approx(brute_force(instance), abs=1e-9)
    assert gain[1:].tolist() == [0.0, 0.0]


def test_a_later_state_is_never_worth_more() -> None:
    instance = draw_instance(Scenario().changed(tasks=8, p=0.3), four_exits(), np.random.default_rng(3))
    flat = flatten(instance.system, instance.tasks)
    delays_s = np.linspace(0.0, 0.5, 21)
    start_s = instance.tasks[0].arrival_s

    gain = labels.best_gain(
        flat, start_s + np.repeat(delays_s[:, None], 3, axis=1), start_s + delays_s, max_labels=4096
    )

    assert (np.diff(gain) <= 1e-12).all()
    assert gain[0] > gain[-1]


def test_few_labels_give_a_lower_bound() -> None:
    instance = draw_instance(Scenario().changed(tasks=8, p=0.5), four_exits(), np.random.default_rng(4))
    flat = flatten(instance.system, instance.tasks)
    device_free_s, edge_free_s = np.full((1, 3), -np.inf), np.full(1, -np.inf)

    gains = [labels.best_gain(flat, device_free_s, edge_free_s, room)[0] for room in (1, 4, 16, 4096)]

    assert all(gain <= gains[-1] for gain in gains)


def test_no_useful_task_is_worth_nothing() -> None:
    system = Scenario(), four_exits()
    instance = draw_instance(*system, np.random.default_rng(0))
    flat = flatten(instance.system, [Task(0.0, 1, 0.0, 0)])

    assert labels.best_gain(flat, np.zeros((2, 3)), np.zeros(2)).tolist() == [0.0, 0.0]
