"""Uploads that wait for the edge's workers, and what the workers have taken."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from offramp.edge_queue import Batching, EdgeJob, EdgeQueue
from offramp.equations import on_time
from offramp.runtime.edge_job import Batch, Work
from offramp.runtime.protocol import Refusal

AHEAD_S = 0.01
"""What takes less than this keeps the next from being expired, withdrawn or joined for no longer: so that one is handed
over already, and its worker need not wait for the event loop between two tasks."""


class WorkQueue:
    """First come, first served, by a number of workers; what has expired is not started.

    `fit`: share of a tail's predicted time that must be left before the deadline for it to be started. `batching`
    says what else a worker that begins a task takes along.
    """

    def __init__(self, workers: int, fit: float, batching: Batching) -> None:
        self._workers = workers
        self._fit = fit
        self._batching = batching
        self._waiting: deque[Work] = deque()
        self._running: list[Batch] = []
        self._ahead: deque[Batch] = deque()

    @property
    def waiting(self) -> int:
        """Uploads that wait for a worker."""
        return len(self._waiting)

    def waiting_of(self, session: bytes) -> int:
        """Uploads of one session that wait."""
        return sum(work.session == session for work in self._waiting)

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
        return not (self._waiting or self._running or self._ahead)

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

    def done(self, batch: Batch, now_s: float) -> None:
        """A worker is free again, and goes on to what was handed over ahead."""
        if batch not in self._running:  # it was ahead, and its worker quicker than the one before it
            self._ahead.remove(batch)
            return
        self._running.remove(batch)
        if self._ahead:
            self._ahead[0].start_s = now_s
            self._running.append(self._ahead.popleft())

    def start(self, now_s: float) -> Iterator[Batch | tuple[Work, Refusal]]:
        """Give the workers what waits: each batch that begins now or is next, and what must not and why."""
        while self._waiting and (len(self._running) < self._workers or self._may_go_ahead):
            free_s = self._free_s(now_s)
            work, start_s = self._waiting.popleft(), free_s[0]
            if not on_time(start_s, work.deadline_s):
                yield work, Refusal.EXPIRED
            elif not on_time(start_s + self._fit * work.tail_s, work.deadline_s):
                yield work, Refusal.TOO_LATE
            else:
                batch = self._begin(work, start_s, free_s[1:])
                ahead = len(self._running) == self._workers
                batch.apart = ahead
                (self._ahead if ahead else self._running).append(batch)
                yield batch

    @property
    def _may_go_ahead(self) -> bool:
        short = all(batch.apart and batch.takes_s < AHEAD_S for batch in self._running)
        return short and len(self._ahead) < self._workers

    def _free_s(self, now_s: float) -> list[float]:
        """When each worker is predicted to be free, the first of them first."""
        idle = self._workers - len(self._running)
        free_s = sorted([now_s] * idle + self._busy_until_s(now_s))
        for batch in self._ahead:
            heapq.heapreplace(free_s, free_s[0] + batch.takes_s)
        return sorted(free_s)

    def _begin(self, first: Work, start_s: float, others_free_s: Sequence[float]) -> Batch:
        if self._batching.most == 1 or not self._waiting:
            return Batch((first,), start_s, first.tail_s)
        others = (_job(place, work) for place, work in enumerate(self._waiting, 1))
        if not self._batching.is_worth_it(_job(0, first), others, start_s):
            return Batch((first,), start_s, first.tail_s)
        line = _jobs((first, *self._waiting))
        jobs, takes_s = self._batching.begin(line, start_s, others_free_s)
        places = {job.order for job in jobs}
        works = (first, *(work for place, work in enumerate(self._waiting, 1) if place in places))
        self._waiting = deque(work for place, work in enumerate(self._waiting, 1) if place not in places)
        return Batch(works, start_s, takes_s)

    def _busy_until_s(self, now_s: float) -> list[float]:
        return [max(now_s, batch.start_s + batch.takes_s) for batch in self._running]

    def forecast(self, expected: Iterable[Work], now_s: float) -> EdgeQueue:
        """The edge's work as the timing model sees it: what runs, what waits, and what is on its way."""
        busy_s = self._free_s(now_s) if self._ahead else self._busy_until_s(now_s)
        queue = EdgeQueue(self._workers, busy_s, self._batching)
        jobs = _jobs((*self._waiting, *expected))
        for job in jobs[len(self._waiting) :]:
            job.arrival_s = max(job.arrival_s, now_s)
        for job in jobs:
            queue.add(job)
        return queue


def _jobs(works: Sequence[Work]) -> list[EdgeJob]:
    """As the timing model has them, in this order."""
    return [_job(place, work) for place, work in enumerate(works)]


def _job(place: int, work: Work) -> EdgeJob:
    return EdgeJob(
        work.arrival_s, place, work.tail_s, work.deadline_s, work.sequence, work.size, work.decision
    )
