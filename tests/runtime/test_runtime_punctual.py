"""The event loop of devices: exact, and not to be killed by a descriptor that somebody closes."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time

import pytest

from offramp.runtime.punctual import punctual_loop


def test_timers_are_not_rounded_up_to_milliseconds() -> None:
    async def wait() -> float:
        loop, rang = asyncio.get_running_loop(), asyncio.Event()
        begin_s = time.perf_counter()
        loop.call_later(0.0004, rang.set)
        await rang.wait()
        return time.perf_counter() - begin_s

    took_s = {}
    for make in (punctual_loop, asyncio.new_event_loop):
        with asyncio.Runner(loop_factory=make) as runner:
            took_s[make] = statistics.median(runner.run(wait()) for _ in range(100))
    assert took_s[punctual_loop] >= 0.0004
    if sys.platform == "linux":
        assert took_s[punctual_loop] < took_s[asyncio.new_event_loop]


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

    with asyncio.Runner(loop_factory=punctual_loop) as runner:
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

    with asyncio.Runner(loop_factory=punctual_loop) as runner:
        assert runner.run(close()) == "alive"
