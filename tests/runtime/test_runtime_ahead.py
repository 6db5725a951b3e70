"""What a worker's thread is handed before it is free: at most one each, in order, and forecast as it will run."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp.edge_queue import Batching
from offramp.runtime.edge_job import Batch, Work
from offramp.runtime.edge_queue import AHEAD_S, WorkQueue
from offramp.runtime.protocol import Refusal
from offramp.task import Decision

NO_BATCHES = Batching(1, 0.0, lambda jobs: jobs[0].tail_s)


def work(sequence: int, tail_s: float, arrival_s: float = 0.0, deadline_s: float = 10.0) -> Work:
    return Work(b"d", sequence, Decision(1, 0), 1, tail_s, arrival_s, deadline_s)


class Threads:
    """Workers' threads that take what they are handed in order."""

    def __init__(self, workers: int, apart: bool) -> None:
        self.queue = WorkQueue(workers, 0.8, NO_BATCHES)
        self.workers, self.apart = workers, apart
        self.now_s = 0.0
        self.computing: list[tuple[float, Batch]] = []
        self.handed: list[Batch] = []
        self.begun: list[int] = []
        self.refused: list[Refusal] = []

    def start(self) -> None:
        for started in self.queue.start(self.now_s):
            if not isinstance(started, Batch):
                self.refused.append(started[1])
                continue
            started.apart = started.apart or self.apart
            self.handed.append(started)
            self.next()
            if self.apart:
                self.start()
        assert len(self.handed) <= self.workers
        assert len(self.computing) <= self.workers
        assert len(self.computing) == self.queue.busy

    def next(self) -> None:
        while self.handed and len(self.computing) < self.workers:
            batch = self.handed.pop(0)
            self.begun.append(batch.works[0].sequence)
            self.computing.append((self.now_s + batch.takes_s, batch))

    def finish(self) -> None:
        self.computing.sort(key=lambda each: each[0])
        self.now_s, batch = self.computing.pop(0)
        self.next()
        self.queue.done(batch, self.now_s)
        self.start()


tails = st.floats(1e-4, 2 * AHEAD_S)


@given(st.integers(1, 3), st.booleans(), st.lists(st.tuples(tails, st.booleans()), min_size=1, max_size=12))
def test_work_is_begun_in_order_and_each_once(
    workers: int, apart: bool, steps: list[tuple[float, bool]]
) -> None:
    threads = Threads(workers, apart)
    for sequence, (tail_s, finish) in enumerate(steps):
        threads.queue.add(work(sequence, tail_s, threads.now_s))
        threads.start()
        if finish and threads.computing:
            threads.finish()
    while threads.computing:
        threads.finish()
    assert threads.begun == list(range(len(steps)))
    assert threads.queue.idle
    assert not threads.refused


def test_the_forecast_counts_what_was_handed_over() -> None:
    tails_s = [0.004, 0.003, 0.002]
    apart, plain = Threads(1, apart=True), Threads(1, apart=False)
    for threads in (apart, plain):
        for sequence, tail_s in enumerate(tails_s):
            threads.queue.add(work(sequence, tail_s))
        threads.start()
    assert (apart.queue.waiting, plain.queue.waiting) == (1, 2)
    expected = [work(9, 0.001, arrival_s=0.02)]
    for threads in (apart, plain):
        arrivals_s, after_s = threads.queue.forecast(expected, 0.0).forecast()
        assert arrivals_s[-1] == 0.02
        np.testing.assert_allclose(after_s[-2:], [0.009, 0.021])


def test_nothing_is_handed_over_behind_long_work_or_work_of_the_event_loop() -> None:
    long, here = Threads(1, apart=True), Threads(1, apart=False)
    for threads, tail_s in ((long, 2 * AHEAD_S), (here, 0.1 * AHEAD_S)):
        for sequence in range(2):
            threads.queue.add(work(sequence, tail_s))
        threads.start()
        assert threads.queue.waiting == 1


@pytest.mark.parametrize(("deadline_s", "refused"), [(0.001, Refusal.EXPIRED), (0.006, Refusal.TOO_LATE)])
def test_what_will_have_expired_by_its_turn_is_refused_at_once(deadline_s: float, refused: Refusal) -> None:
    threads = Threads(1, apart=True)
    threads.queue.add(work(0, 0.004))
    threads.queue.add(work(1, 0.004, deadline_s=deadline_s))
    threads.start()
    assert threads.refused == [refused]
