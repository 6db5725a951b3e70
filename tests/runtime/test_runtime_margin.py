"""What is left unplanned follows what predictions were off by."""

from __future__ import annotations

import pytest

from offramp.runtime.forecast import RunningSpeed
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
