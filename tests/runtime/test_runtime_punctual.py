"""The event loop of devices: exact, and not to be killed by a descriptor that somebody closes."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time

import numpy as np
import pytest

from offramp.runtime.punctual import AROUND_S, FAR_S, WAKE_S, Expectation, PunctualLoop, Rhythm, Wake


def test_timers_are_not_rounded_up_to_milliseconds() -> None:
    async def wait() -> float:
        loop, rang = asyncio.get_running_loop(), asyncio.Event()
        begin_s = time.perf_counter()
        loop.call_later(0.0004, rang.set)
        await rang.wait()
        return time.perf_counter() - begin_s

    took_s = {}
    for make in (PunctualLoop, asyncio.new_event_loop):
        with asyncio.Runner(loop_factory=make) as runner:
            took_s[make] = statistics.median(runner.run(wait()) for _ in range(100))
    assert took_s[PunctualLoop] >= 0.0004
    if sys.platform == "linux":
        assert took_s[PunctualLoop] < took_s[asyncio.new_event_loop]


def test_what_is_ready_is_seen_while_a_timer_is_awaited() -> None:
    async def read() -> bytes:
        loop = asyncio.get_running_loop()
        reader, writer = os.pipe()
        got: asyncio.Future[bytes] = loop.create_future()
        loop.add_reader(reader, lambda: got.set_result(os.read(reader, 1)))
        loop.call_later(0.01, os.write, writer, b"x")
        far = loop.call_later(60.0, lambda: None)
        try:
            return await got
        finally:
            far.cancel()
            loop.remove_reader(reader)
            os.close(reader)
            os.close(writer)

    with asyncio.Runner(loop_factory=PunctualLoop) as runner:
        assert runner.run(read()) == b"x"


@pytest.mark.skipif(sys.platform != "linux", reason="epoll forgets what is closed")
def test_a_watched_descriptor_may_be_closed_by_somebody_else() -> None:
    async def close() -> str:
        loop = asyncio.get_running_loop()
        reader, writer = os.pipe()
        loop.add_reader(reader, lambda: None)
        os.close(reader)
        os.close(writer)
        await asyncio.sleep(0.01)
        return "alive"

    with asyncio.Runner(loop_factory=PunctualLoop) as runner:
        assert runner.run(close()) == "alive"


def test_it_sleeps_but_when_something_is_expected() -> None:
    """Processor time of a wait of 40 ms, and of one whose last 20 are attended."""

    async def wait(attended_s: float) -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, PunctualLoop)
        now_s = loop.time()
        if attended_s > 0:
            loop.attend(now_s + 0.04 - attended_s, now_s + 0.04)
        busy_s = time.thread_time()
        await asyncio.sleep(0.04)
        return time.thread_time() - busy_s

    with asyncio.Runner(loop_factory=PunctualLoop) as runner:
        asleep, awake = (
            statistics.median(runner.run(wait(attended_s)) for _ in range(5)) for attended_s in (0.0, 0.02)
        )
    assert asleep < 0.005
    if sys.platform == "linux":
        assert awake > 2 * asleep
        assert awake > 0.005


def test_an_expectation_learns_by_how_much_it_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    attended: list[float] = []

    async def expect() -> None:
        monkeypatch.setattr(PunctualLoop, "attend", lambda self, from_s, until_s: attended.append(from_s))
        expectation = Expectation()
        for turn in range(40):
            expectation.foretell(float(turn))
            expectation.came(turn + 0.002)
            expectation.came(turn + 0.5)  # nobody foretold this
        expectation.foretell(100.0)
        expectation.came(100.0 + 10 * FAR_S)  # says nothing of the next
        expectation.foretell(101.0)

    with asyncio.Runner(loop_factory=PunctualLoop) as runner:
        runner.run(expect())
    assert attended[0] == -AROUND_S
    assert attended[-1] == pytest.approx(101.002 - AROUND_S, abs=1e-5)


def test_a_rhythm_foretells_what_comes_at_even_intervals() -> None:
    rhythm = Rhythm()
    assert [rhythm.came(instant_s) for instant_s in (5.0, 5.1)] == [None, None]
    assert rhythm.came(5.2004) == pytest.approx(5.3008)
    assert rhythm.came(5.3004) == pytest.approx(5.4004)
    assert rhythm.came(5.7) is None  # one was left out
    assert rhythm.came(5.8) is None
    assert rhythm.came(5.9) == pytest.approx(6.0)


def test_what_comes_at_random_or_at_once_has_no_rhythm() -> None:
    random, quick = Rhythm(), Rhythm()
    instants_s = np.cumsum(np.random.default_rng(0).uniform(0.02, 0.5, 200))
    foretold = sum(random.came(float(instant_s)) is not None for instant_s in instants_s)
    assert foretold < 10
    assert all(quick.came(0.002 * number) is None for number in range(20))


def test_the_way_is_tried_before_what_has_a_rhythm_is_due() -> None:
    async def wait() -> list[float]:
        loop, called = asyncio.get_running_loop(), []
        done = loop.create_future()

        def call() -> None:
            called.append(loop.time())
            if len(called) == len(WAKE_S):
                done.set_result(None)

        wake, now_s = Wake(call), loop.time()
        for number in (2, 1, 0):
            wake.came(now_s - 0.05 * number)
        await done
        return [instant_s - now_s for instant_s in called]

    with asyncio.Runner(loop_factory=PunctualLoop) as runner:
        called = runner.run(wait())
    assert all(at_s >= 0.05 - lead_s - 1e-6 for at_s, lead_s in zip(called, WAKE_S, strict=True))
    assert called == sorted(called)
