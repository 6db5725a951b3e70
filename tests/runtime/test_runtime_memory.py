"""When a process gives back what it no longer needs."""

import pytest

from offramp.runtime import memory


@pytest.fixture
def heap(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Resident pages, the last one now; trims are counted as a copy of what is there."""
    pages = [1000]
    monkeypatch.setattr(memory, "resident_pages", lambda: pages[-1])
    return pages


@pytest.fixture
def trims(monkeypatch: pytest.MonkeyPatch, heap: list[int]) -> list[int]:
    done: list[int] = []
    monkeypatch.setattr(memory, "trim", lambda: done.append(heap[-1]))
    return done


def test_what_has_not_grown_is_left_alone(heap: list[int], trims: list[int]) -> None:
    slack = memory.Slack()
    heap.append(int(1000 * (1 + memory.GROWTH)))
    for now_s in range(200):
        slack.give_back(float(now_s))
    assert trims == []


def test_growth_is_trimmed_at_once_and_again_when_its_cause_may_be_gone(
    heap: list[int], trims: list[int]
) -> None:
    slack = memory.Slack()
    heap.append(1500)
    for now_s in range(200):
        slack.give_back(float(now_s))
    assert len(trims) == 1 + len(memory.GAPS_S)


def test_growth_during_the_series_begins_it_anew(heap: list[int], trims: list[int]) -> None:
    slack = memory.Slack()
    heap.append(1500)
    slack.give_back(0.0)
    heap.append(2000)
    last_s = 20.0
    slack.give_back(last_s)
    assert trims == [1500, 2000]
    slack.give_back(last_s + memory.GAPS_S[-1])
    slack.give_back(last_s + memory.GAPS_S[-1] + 1.0)
    assert len(trims) == 3, "looks that were missed are made up for by one"
