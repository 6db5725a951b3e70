"""An estimator finds steady links out, never believes more than was delivered, and never stays wrong."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp.link import RateLink
from offramp.link_estimate import (
    FIRST_PROBES,
    JOINED_S,
    MEMORY,
    PROBE_S,
    Assumed,
    LinkEstimator,
    Pending,
    probe_bytes,
)

rates = st.floats(1e4, 1e7)


def play(estimator: LinkEstimator, link: RateLink, sizes: list[int], gap_s: float) -> float:
    """Uploads of these sizes, each begun `gap_s` after the last; the instant at which the last is there."""
    now_s = 0.0
    for size in sizes:
        began_s = now_s + gap_s
        now_s = link.carry(began_s, size) + link.delay_s
        estimator.seen(size, now_s - began_s, now_s)
    return now_s


@given(rates, rates, st.floats(0.0, 0.05), st.integers(0, 1000))
def test_a_steady_link_is_found_out_whatever_was_declared(
    rate: float, declared: float, delay_s: float, seed: int
) -> None:
    estimator = LinkEstimator(declared)
    # Uploads of some tens of milliseconds and more, so that they tell something.
    sizes = np.random.default_rng(seed).uniform(0.05 * rate, 0.4 * rate, 3 * MEMORY).astype(int).tolist()
    now_s = play(estimator, RateLink(rate, delay_s), sizes, gap_s=0.1)
    assert estimator.delay_s == pytest.approx(delay_s, abs=1e-3)
    assert estimator.rate(now_s) == pytest.approx(rate, rel=0.03)


@given(rates)
def test_probes_alone_find_a_faster_link_out(rate: float) -> None:
    """A link that is declared so slow that nothing is ever uploaded must not stay so."""
    estimator, link, now_s = LinkEstimator(rate / 50), RateLink(rate), 0.0
    for _ in range(200):
        began_s = now_s + PROBE_S
        size = probe_bytes(estimator.rate(began_s))
        now_s = link.carry(began_s, size)
        estimator.seen(size, now_s - began_s, now_s)
    # What a probe of less than a grain tells is coarse.
    assert estimator.rate(now_s) >= 0.7 * min(rate, probe_bytes(0.0) / 0.01)
    assert estimator.rate(now_s) <= 1.05 * rate


@given(rates)
def test_a_new_link_is_known_before_the_stream_begins(rate: float) -> None:
    """Declared four times too slow; probes of a few packets, whose size follows nothing that they show."""
    estimator, link = LinkEstimator(rate / 4), RateLink(rate)
    size = probe_bytes(estimator.rate(0.0))
    now_s, carried = 0.0, 0
    while (begin_s := now_s + estimator.probe_gap_s(carried)) <= JOINED_S:
        now_s = link.carry(begin_s, size)
        estimator.seen(size, now_s - begin_s, now_s)
        carried += 1
    assert carried >= FIRST_PROBES or carried * size >= 0.3 * JOINED_S * rate, "or they fill a slow link"
    assert estimator.rate(JOINED_S) <= 1.05 * rate
    if carried >= FIRST_PROBES:
        assert estimator.rate(JOINED_S) >= 0.7 * min(rate, size / 0.01)


def test_the_first_probes_come_fast_and_the_later_ones_do_not() -> None:
    new, promised = LinkEstimator(1e5), LinkEstimator(1e5, steady=True)
    gaps_s = [new.probe_gap_s(carried) for carried in range(FIRST_PROBES + 3)]
    assert all(later == 2 * gap for gap, later in pairwise(gaps_s[: FIRST_PROBES + 1]))
    assert gaps_s[FIRST_PROBES:] == [PROBE_S] * 3
    assert sum(gaps_s[:FIRST_PROBES]) < JOINED_S / 2
    assert promised.probe_gap_s(0) == PROBE_S


@given(st.lists(st.tuples(st.integers(1, 10**6), st.floats(1e-3, 20.0)), min_size=1, max_size=100))
def test_no_more_is_believed_than_was_ever_delivered_or_declared(uploads: list[tuple[int, float]]) -> None:
    estimator, now_s = LinkEstimator(50_000.0), 0.0
    fastest = 50_000.0
    for size, duration_s in uploads:
        now_s += duration_s
        estimator.seen(size, duration_s, now_s)
        # With the least delay that could be believed, all of the shortest upload but nothing of a grain.
        fastest = max(fastest, size / max(duration_s - estimator.delay_s, 1e-12))
        assert estimator.rate(now_s) <= 1.02 * fastest
        assert math.isfinite(estimator.rate(now_s))
        assert estimator.rate(now_s) > 0


@given(st.lists(st.floats(1e-3, 5.0), min_size=1, max_size=80), st.floats(0.0, 30.0))
def test_what_does_not_come_caps_the_rate(durations_s: list[float], overdue_s: float) -> None:
    estimator, now_s = LinkEstimator(1e5), 0.0
    for duration_s in durations_s:
        now_s += duration_s
        estimator.seen(1e4, duration_s, now_s)
    rate = estimator.rate(now_s, Pending(1e4, overdue_s))
    assert rate <= estimator.rate(now_s)
    if overdue_s > 0:
        assert 1e4 / rate >= 0.98 * (overdue_s - estimator.delay_s)


def test_a_link_that_recovers_is_believed_again() -> None:
    estimator = LinkEstimator(125_000.0)
    good = RateLink(125_000.0)
    now_s = play(estimator, good, [12_500] * 20, gap_s=0.1)
    estimator.seen(12_500, 5.0, now_s + 5.0)
    assert estimator.rate(now_s + 5.0) < 60_000.0
    for _ in range(30):
        now_s += PROBE_S
        estimator.seen(12_500, 0.1, now_s + 5.0)
    assert estimator.rate(now_s + 5.0) > 100_000.0


def test_a_capricious_link_is_planned_with_less_than_its_typical_rate() -> None:
    steady, wild = LinkEstimator(1e5), LinkEstimator(1e5)
    rng, now_s = np.random.default_rng(5), 0.0
    for _ in range(200):
        now_s += 0.3
        steady.seen(2e4, 0.2, now_s)
        wild.seen(2e4, float(0.2 * np.exp(rng.normal(0.0, 1.0))), now_s)
    assert wild.rate(now_s) < 0.8 * steady.rate(now_s)
    slack = np.array([0.0, 0.5, 1.0, 4.0, 100.0])
    chance = wild.chance(slack)
    assert chance is not None
    assert (np.diff(chance) >= 0).all()
    assert chance[0] == 0.0
    assert chance[-1] > 0.95
    # The quantile that the rate leaves out.
    assert chance[2] == pytest.approx(0.75, abs=0.06)
    certain = steady.chance(slack)
    assert certain is not None
    np.testing.assert_array_equal(certain, [0.0, 0.0, 1.0, 1.0, 1.0])


@given(rates, st.floats(0.9, 1.1), st.integers(0, 100))
def test_a_promised_rate_is_believed_until_uploads_break_it(rate: float, wobble: float, seed: int) -> None:
    estimator, now_s = LinkEstimator(rate, steady=True), 0.0
    rng = np.random.default_rng(seed)
    for _ in range(50):
        now_s += 0.3
        estimator.seen(0.1 * rate, float(0.1 * wobble * rng.uniform(0.95, 1.05)), now_s)
        assert estimator.rate(now_s) == rate
        assert estimator.chance(np.ones(1)) is None
    for _ in range(100):
        now_s += 0.6
        estimator.seen(0.1 * rate, 0.5, now_s)
    assert estimator.rate(now_s) == pytest.approx(0.2 * rate, rel=0.1)


def test_an_assumption_is_not_moved() -> None:
    assumed = Assumed(1000.0, 0.01)
    assumed.seen(10.0, 100.0, 1.0)
    assert assumed.rate(2.0, Pending(10.0, 50.0)) == 1000.0
    assert assumed.chance(np.zeros(3)) is None
    assert assumed.probe_gap_s(0) == math.inf
