"""What is left unplanned follows what predictions were off by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp.errors import OfframpError
from offramp.host_profile import check_confidence, load_profile, residual_excess
from offramp.model.bundle import default_bundle_path
from offramp.runtime.forecast import NOTABLE_DRIFT, RunningSpeed
from offramp.runtime.margin import ENOUGH, MOST, Margin


def test_nothing_is_left_free_while_predictions_come_true() -> None:
    margin = Margin()
    for _ in range(50):
        margin.finished(0.1, 0.1)
    assert margin.share == 0.0


def test_a_few_tasks_prove_nothing() -> None:
    margin = Margin()
    for _ in range(ENOUGH - 1):
        margin.finished(0.1, 0.2)
    assert margin.share == 0.0


def test_the_margin_covers_most_of_what_was_late() -> None:
    margin = Margin()
    excess = [0.0, 0.02, 0.04, 0.06, 0.08, 0.10, 0.12, 0.14] * 5
    for share in excess:
        margin.finished(0.1, 0.1 * (1 + share))
    covered = sum(share <= margin.share + 1e-9 for share in excess) / len(excess)
    assert 0.7 <= covered <= 0.9


def test_one_stall_does_not_take_the_whole_budget() -> None:
    margin = Margin()
    for measured_s in [0.1] * 39 + [10.0]:
        margin.finished(0.1, measured_s)
    assert margin.share == pytest.approx(0.0, abs=1e-9)
    for _ in range(40):
        margin.finished(0.1, 10.0)
    assert margin.share == MOST


def test_a_speed_follows_a_lasting_change_and_not_a_stall() -> None:
    speed = RunningSpeed(1.0)
    assert not speed.measured(0.01, 0.0102)
    speed.measured(0.01, 5.0)
    assert speed.factor < 1.5
    for _ in range(100):
        speed.measured(0.01, 0.02)
    assert speed.factor == pytest.approx(2.0, rel=0.06)


def test_the_confidence_asked_for_is_covered() -> None:
    margin = Margin(confidence=0.95, excess=0.2)
    # Nothing has been seen yet: what the profile's residuals say.
    assert margin.share == 0.2
    excess = [0.01 * number for number in range(20)] * 3
    for share in excess:
        margin.finished(0.1, 0.1 * (1 + share))
    latest = excess[-24:]
    assert sum(share <= margin.share + 1e-9 for share in latest) / len(latest) >= 0.95
    assert Margin(confidence=0.95, excess=3.0).share == MOST


@given(st.lists(st.floats(0.2, 5.0), max_size=60))
def test_a_drift_is_told_once_when_it_comes_and_once_when_it_goes(ratios: list[float]) -> None:
    speed, told = RunningSpeed(2.0), []
    for ratio in ratios:
        speed.measured(1.0, 2.0 * ratio)
        assert speed.factor == pytest.approx(2.0 * (1.0 + speed.drift))
        if (news := speed.news()) is not None:
            told.append(news)
            assert news == speed.drift
        assert speed.news() is None
    for number, news in enumerate(told):
        assert (abs(news) > NOTABLE_DRIFT) == (number % 2 == 0)


def test_residuals_carry_through_to_the_margin() -> None:
    profile = load_profile(default_bundle_path() / "profile.json")
    middle, high, highest = (residual_excess(profile, share) for share in (0.5, 0.95, 0.99))
    assert 0.0 <= middle <= high <= highest
    worst = max(layer.residual_quantiles["p95"] for exit in profile.exits for layer in exit.layers)
    assert 0.0 < high <= worst
    for bad in (0.4, 1.0):
        with pytest.raises(OfframpError, match="confidence"):
            check_confidence(bad)
