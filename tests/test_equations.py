"""The paper's arithmetic against sums written out by hand and against properties it must have."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp import equations

durations = st.lists(st.floats(0, 10), min_size=1, max_size=8)
instants = st.floats(0, 100)


@given(durations)
def test_head_and_tail_of_a_cut_share_the_layers(layer_s: list[float]) -> None:
    head = equations.head_durations(np.array(layer_s))
    tail = equations.tail_durations(np.array(layer_s))
    for cut in range(len(layer_s) + 1):
        assert head[cut] == pytest.approx(math.fsum(layer_s[:cut]))
        assert tail[cut] == pytest.approx(math.fsum(layer_s[cut:]))


def test_gain_of_the_papers_exits() -> None:
    # Eq. 1 with α = 0.1, β = 16 at Section IV's accuracies, worked out with math.exp.
    accuracies = [0.527, 0.623, 0.697, 0.743]
    expected = [1 + 0.1 / (1 + math.exp(-16 * (a - 0.527))) for a in accuracies]
    assert equations.gain(np.array(accuracies), 0.527, 0.1, 16.0) == pytest.approx(expected)
    assert expected[0] == pytest.approx(1.05)


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=6), st.floats(0, 2), st.floats(0, 30))
def test_gain_grows_with_accuracy_up_to_its_limit(
    accuracies: list[float], weight: float, slope: float
) -> None:
    ordered = np.sort(np.array(accuracies))
    gains = equations.gain(ordered, ordered[0], weight, slope)
    assert (np.diff(gains) >= 0).all()
    assert (gains >= 1 + weight / 2 - 1e-12).all()
    assert (gains <= 1 + weight + 1e-12).all()


@given(instants, instants, instants, st.floats(0, 5), st.floats(0, 5), st.floats(0, 5))
def test_paper_timeline_never_runs_backwards_and_never_overtakes(
    arrival_s: float, device_free_s: float, edge_free_s: float, head_s: float, upload_s: float, tail_s: float
) -> None:
    line = equations.paper_timeline(
        arrival_s, device_free_s, edge_free_s, np.array(head_s), np.array(upload_s), np.array(tail_s)
    )
    assert arrival_s <= line.device_start_s <= line.send_s <= line.edge_start_s <= line.finish_s
    assert line.finish_s >= edge_free_s
    assert line.edge_start_s == pytest.approx(
        max(max(arrival_s, device_free_s) + head_s + upload_s, edge_free_s)
    )


def test_a_local_task_ends_with_its_head_under_network_timing() -> None:
    finish_s = equations.network_finish(
        np.array([1.0, 1.0]), np.array([5.0, 5.0]), np.array([0.0, 0.5]), 0.25, np.array([True, False])
    )
    assert finish_s.tolist() == [1.0, 5.75]


@given(st.floats(0, 5), st.floats(0, 5), st.floats(0, 5), st.floats(0, 1), st.floats(0, 1))
def test_nothing_is_faster_than_its_parts_on_their_own(
    head_s: float, upload_s: float, tail_s: float, decision_s: float, answer_s: float
) -> None:
    head, upload, tail = np.array([head_s]), np.array([upload_s]), np.array([tail_s])
    [least_s] = equations.least_duration(head, upload, decision_s + answer_s, tail)
    assert least_s == pytest.approx(math.fsum((head_s, upload_s, tail_s, decision_s, answer_s)))
    # An idle system under `network` timing takes exactly that, a busy one no less.
    ready_s = equations.decided(0.0, 0.0, decision_s)
    for free_s in (-math.inf, 3.0):
        *_, there_s = equations.network_arrival(ready_s, free_s, free_s, 0.0, head, upload)
        edge_start_s = np.maximum(there_s, free_s)
        [finish_s] = equations.network_finish(head, edge_start_s, tail, answer_s, np.array([False]))
        assert finish_s >= least_s - equations.TIME_TOLERANCE_S
        assert free_s == 3.0 or finish_s == pytest.approx(least_s)


def test_a_sum_that_meets_the_deadline_but_for_rounding_is_on_time() -> None:
    assert 0.1 + 0.2 > 0.3
    assert equations.on_time(0.1 + 0.2, 0.3)
    assert not equations.on_time(0.3 + 1e-6, 0.3)
