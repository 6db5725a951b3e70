"""Arrivals and sizes against the distributions they claim."""

from __future__ import annotations

import itertools
from statistics import NormalDist

import numpy as np
import pytest
from pydantic import TypeAdapter

from offramp.errors import OfframpError
from offramp.instance import draw_tasks
from offramp.scenario import Scenario
from offramp.streams import Arrivals, Bernoulli, Bursty, ListedSizes, NormalSizes, Poisson, Recorded

SLOT_S = 0.01


@pytest.mark.parametrize(
    ("arrivals", "rate_per_s"),
    [
        (Bernoulli(probability=0.1), 10.0),
        (Bernoulli(probability=1.0), 100.0),
        (Poisson(rate_per_s=25.0), 25.0),
        (Bursty(calm_probability=0.0, burst_probability=0.5, calm_slots=30, burst_slots=10), 12.5),
        (Recorded(instants_s=(0.0, 0.1, 0.1), period_s=0.5), 6.0),
    ],
)
def test_arrivals_ascend_at_their_rate(arrivals: Arrivals, rate_per_s: float) -> None:
    count = 20_000
    instants = np.fromiter(
        itertools.islice(arrivals.instants(SLOT_S, np.random.default_rng(1)), count), float
    )
    assert (np.diff(instants) >= 0).all()
    assert instants[0] >= 0
    assert count / instants[-1] == pytest.approx(rate_per_s, rel=0.08)


def test_bernoulli_fills_at_most_one_task_into_a_slot_from_slot_zero_on() -> None:
    instants = itertools.islice(Bernoulli(probability=1.0).instants(SLOT_S, np.random.default_rng(0)), 5)
    assert list(instants) == pytest.approx([0.0, 0.01, 0.02, 0.03, 0.04])


def test_a_recording_starts_over() -> None:
    recorded = Recorded(instants_s=(0.0, 0.2), period_s=1.0)
    instants = itertools.islice(recorded.instants(SLOT_S, np.random.default_rng(0)), 5)
    assert list(instants) == pytest.approx([0.0, 0.2, 1.0, 1.2, 2.0])


def test_normal_sizes_are_a_rounded_normal_given_its_range() -> None:
    sizes = NormalSizes()
    normal = NormalDist(sizes.mean, sizes.sd)
    mass = normal.cdf(10.5) - normal.cdf(0.5)
    expected = [(normal.cdf(n + 0.5) - normal.cdf(n - 0.5)) / mass for n in range(1, 11)]
    assert sizes.probabilities() == pytest.approx(expected)


def test_listed_sizes_without_weights_are_alike() -> None:
    assert ListedSizes(values=(2, 5)).probabilities().tolist() == [0.5, 0.5]


def test_tasks_have_proportional_budgets_and_even_devices() -> None:
    scenario = Scenario(devices=4, k=3, slot_s=SLOT_S)
    tasks = list(itertools.islice(draw_tasks(scenario, np.random.default_rng(3)), 4000))
    assert all(task.budget_s == pytest.approx(0.03 * task.size) for task in tasks)
    shares = np.bincount([task.device for task in tasks], minlength=4) / len(tasks)
    assert shares == pytest.approx(np.full(4, 0.25), abs=0.03)
    assert {task.size for task in tasks} == set(range(1, 11))


def test_fewer_tasks_are_a_prefix_of_more() -> None:
    few, many = (
        list(itertools.islice(draw_tasks(Scenario(), np.random.default_rng(7)), count)) for count in (10, 50)
    )
    assert many[:10] == few


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"k": 0.0}, "k"),
        ({"k": -1.0}, "k"),
        ({"k": float("nan")}, "k"),
        ({"devices": 0}, "devices"),
        ({"tasks": 0}, "tasks"),
        ({"p": 0.0}, "p"),
        ({"p": 1.5}, "p"),
        ({"p": float("nan")}, "p"),
        ({"slot_s": 0.0}, "slot_s"),
    ],
)
def test_a_bad_option_is_named(change: dict[str, float], field: str) -> None:
    with pytest.raises(OfframpError, match=rf"\b{field} = "):
        Scenario().changed(**change)  # type: ignore[arg-type]


def test_unknown_arrivals_are_refused() -> None:
    with pytest.raises(ValueError, match="kind"):
        TypeAdapter(Arrivals).validate_python({"kind": "uniform"})
