"""Uploads that wait for the edge's workers, and what the workers have taken."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from offramp.edge_queue import Batching, EdgeJob, EdgeQueue
from offramp.equations import on_time
from offramp.runtime.edge_job import Batch, Work
from offramp.runtime.protocol import Refusal


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

    def done(self, batch: Batch) -> None:
        """A worker is free again."""
        self._running.remove(batch)

    def start(self, now_s: float) -> Iterator[Batch | tuple[Work, Refusal]]:
        """Give the free workers what waits: each batch that begins now, and what must not and why."""
        while self._waiting and len(self._running) < self._workers:
            work = self._waiting.popleft()
            if not on_time(now_s, work.deadline_s):
                yield work, Refusal.EXPIRED
            elif not on_time(now_s + self._fit * work.tail_s, work.deadline_s):
                yield work, Refusal.TOO_LATE
            else:
                batch = self._begin(work, now_s)
                self._running.append(batch)
                yield batch

    def _begin(self, first: Work, now_s: float) -> Batch:
        if self._batching.most == 1 or not self._waiting:
            return Batch((first,), now_s, first.tail_s)
        line = _jobs((first, *self._waiting))
        # A worker without work is free now; the others are when what they run is predicted to end.
        busy_s = self._busy_until_s(now_s)
        others_free_s = [*busy_s, *[now_s] * (self._workers - 1 - len(busy_s))]
        jobs, takes_s = self._batching.begin(line, now_s, others_free_s)
        places = {job.order for job in jobs}
        works = (first, *(work for place, work in enumerate(self._waiting, 1) if place in places))
        self._waiting = deque(work for place, work in enumerate(self._waiting, 1) if place not in places)
        return Batch(works, now_s, takes_s)

    def _busy_until_s(self, now_s: float) -> list[float]:
        return [max(now_s, batch.start_s + batch.takes_s) for batch in self._running]

    def forecast(self, expected: Iterable[Work], now_s: float) -> EdgeQueue:
        """The edge's work as the timing model sees it: what runs, what waits, and what is on its way."""
        queue = EdgeQueue(self._workers, self._busy_until_s(now_s), self._batching)
        jobs = _jobs((*self._waiting, *expected))
        for job in jobs[len(self._waiting) :]:
            job.arrival_s = max(job.arrival_s, now_s)
        for job in jobs:
            queue.add(job)
        return queue


def _jobs(works: Sequence[Work]) -> list[EdgeJob]:
    """As the timing model has them, in this order."""
    return [
        EdgeJob(work.arrival_s, place, work.tail_s, work.deadline_s, work.sequence, work.size, work.decision)
        for place, work in enumerate(works)
    ]
