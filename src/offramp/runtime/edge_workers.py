"""The edge's worker threads: each takes the next call when it is done with the last."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

Call = Callable[[], None]


class Workers:
    """`count` threads, which start with the first call. A call must not raise.

    `concurrent.futures` costs about 40 µs for each call more, most of it for a result that nobody here waits for.
    """

    def __init__(self, count: int, name: str) -> None:
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}_{number}", daemon=True)
            for number in range(count)
        ]
        self._started = False

    def submit(self, call: Call) -> None:
        """Have it called by the next free thread."""
        if not self._started:
            self._started = True
            for thread in self._threads:
                thread.start()
        self._calls.put(call)

    def stop(self) -> None:
        """Forget the calls that nobody has begun, and wait for those that are under way."""
        if not self._started:
            return
        while not self._calls.empty():
            self._calls.get()
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
