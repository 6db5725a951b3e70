"""Uploads that wait for the edge's workers, and what the workers have taken."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from offramp.equations import on_time
from offramp.runtime.edge_job import Work
from offramp.runtime.protocol import Refusal
from offramp.state import EdgeJob, EdgeQueue


class WorkQueue:
    """First come, first served, by a number of workers; what has expired is not started.

    `fit`: share of a tail's predicted time that must be left before the deadline for it to be started.
    """

    def __init__(self, workers: int, fit: float) -> None:
        self._workers = workers
        self._fit = fit
        self._waiting: deque[Work] = deque()
        self._running: list[Work] = []

    @property
    def waiting(self) -> int:
        """Uploads that wait for a worker."""
        return len(self._waiting)

    @property
    def workers(self) -> int:
        """How many there are."""
        return self._workers

    @property
    def busy(self) -> int:
        """Workers that compute."""
        return len(self._running)

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not (self._waiting or self._running)

    def add(self, work: Work) -> None:
        """An upload has come."""
        self._waiting.append(work)

    def withdraw(self, session: bytes, sequence: int | None = None) -> None:
        """Forget a session's waiting upload of a task, or all that it has waiting."""
        self._waiting = deque(
            work
            for work in self._waiting
            if work.session != session or (sequence is not None and work.sequence != sequence)
        )

    def done(self, work: Work) -> None:
        """A worker is free again."""
        self._running.remove(work)

    def start(self, now_s: float) -> Iterator[tuple[Work, Refusal | None]]:
        """Give the free workers what waits: each work that begins now, or why it must not."""
        while self._waiting and len(self._running) < self._workers:
            work = self._waiting.popleft()
            if not on_time(now_s, work.deadline_s):
                yield work, Refusal.EXPIRED
            elif not on_time(now_s + self._fit * work.tail_s, work.deadline_s):
                yield work, Refusal.TOO_LATE
            else:
                work.start_s = now_s
                self._running.append(work)
                yield work, None

    def forecast(self, expected: Iterable[Work], now_s: float) -> EdgeQueue:
        """The edge's work as the timing model sees it: what runs, what waits, and what is on its way."""
        busy = [max(now_s, work.start_s + work.tail_s) for work in self._running]
        queue = EdgeQueue(self._workers, busy)
        order = 0
        for order, work in enumerate(self._waiting):
            queue.add(EdgeJob(work.arrival_s, order, work.tail_s, work.deadline_s, work.sequence))
        for work in expected:
            order += 1
            arrival_s = max(work.arrival_s, now_s)
            queue.add(EdgeJob(arrival_s, order, work.tail_s, work.deadline_s, work.sequence))
        return queue
