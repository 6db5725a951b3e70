"""The edge's queue under `network`: what waits there, when workers begin it, and what they run together."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from offramp import equations
from offramp.equations import FloatArray
from offramp.task import Decision

_NEVER = float("-inf")
WORTH = 0.1
"""What a task must save by joining a batch, as a share of its own time: less is lost again in putting tensors together
and taking logits apart, which no profile knows."""


@dataclass(order=True, slots=True)
class EdgeJob:
    """Work on its way to the edge or waiting there; ordered by arrival at the edge, then by decision."""

    arrival_s: float
    order: int
    tail_s: float = field(compare=False)
    deadline_s: float = field(compare=False)
    key: Hashable = field(compare=False)
    size: int = field(compare=False)
    decision: Decision = field(compare=False)

    @property
    def block(self) -> tuple[int, int]:
        """Exit and cut: what waits for the same layers can be run together, whatever decodes it."""
        return self.decision.exit, self.decision.cut


class Started(NamedTuple):
    """A job that has begun at `start_s`, for `takes_s` with all that it runs together with; None: it had expired."""

    job: EdgeJob
    start_s: float | None
    takes_s: float


@dataclass(frozen=True, slots=True)
class Batching:
    """How many tasks a worker may run together, and what that takes.

    Attributes:
        most: tasks, >= 1.
        answer_s: from the end of the work until the answer is there, seconds.
        duration: seconds that jobs of one block take together.
    """

    most: int
    answer_s: float
    duration: Callable[[Sequence[EdgeJob]], float]

    def begin(
        self, line: Sequence[EdgeJob], start_s: float, others_free_s: Sequence[float]
    ) -> tuple[list[EdgeJob], float]:
        """What a worker that is free at `start_s` runs, and for how long: the line's first, and what may join it.

        `line` is all that has arrived, in order, `others_free_s` when the other workers are free. Of those that wait
        for the same block and can be on time, one after the other joins as long as that saves `WORTH` of its time, it
        is on time with the batch, is there no later than in its turn if all were served one by one, and no task in
        the line is late because of it.
        """
        batch, takes_s, rest = [line[0]], line[0].tail_s, list(line[1:])
        if self.most == 1 or not rest:
            return batch, takes_s
        block = line[0].block
        alike = (job for job in line[1:] if job.block == block and self._hopeful(job, start_s))
        for job in islice(alike, self.most - 1):
            wider = [*batch, job]
            wider_s = self.duration(wider)
            if not self._worth(job, takes_s, wider_s):
                break
            end_s, wider_end_s = start_s + takes_s, start_s + wider_s
            free_s = [max(start_s, instant_s) for instant_s in others_free_s]
            # Mostly it fails by the batch itself, which is seen without the rest of the line.
            if (
                wider_end_s > _turn_s(job, rest, [end_s, *free_s])
                or not self._keep(batch, job, end_s, wider_end_s)
                or not self._harmless(job, rest, [end_s, *free_s], [wider_end_s, *free_s])
            ):
                break
            batch, takes_s, rest = wider, wider_s, [other for other in rest if other is not job]
        return batch, takes_s

    def is_worth_it(self, first: EdgeJob, others: Iterable[EdgeJob], start_s: float) -> bool:
        """Whether `begin` might join anything to `first`, which waits before `others`: without laying out the line.

        A long one takes as long to lay out as a tenth of a short tail, at every beginning.
        """
        alike = (job for job in others if job.block == first.block and self._hopeful(job, start_s))
        job = next(alike, None)
        return job is not None and self._worth(job, first.tail_s, self.duration([first, job]))

    def _worth(self, joins: EdgeJob, takes_s: float, wider_s: float) -> bool:
        return wider_s <= takes_s + (1.0 - WORTH) * joins.tail_s

    def _keep(self, batch: Sequence[EdgeJob], joins: EdgeJob, end_s: float, wider_end_s: float) -> bool:
        """Whether a job is on time in a batch that then ends later, and so are those that were without it."""
        return self._in_time(joins, wider_end_s) and all(
            self._in_time(each, wider_end_s) or not self._in_time(each, end_s) for each in batch
        )

    def _harmless(
        self, joins: EdgeJob, rest: Sequence[EdgeJob], before_s: list[float], after_s: list[float]
    ) -> bool:
        """Whether none of the rest is late because a job joins a batch: workers are then free at `after_s`.

        All are served one by one. The first of `before_s` is when the batch ends without the job.
        """
        end_s = before_s[0]
        heapq.heapify(before_s)
        heapq.heapify(after_s)
        for job in rest:
            turn_s = before_s[0] + job.tail_s
            heapq.heapreplace(before_s, turn_s)
            if job is joins:
                continue
            later_s = after_s[0] + job.tail_s
            heapq.heapreplace(after_s, later_s)
            if self._in_time(job, later_s):
                continue
            # What it passes by may only be on time because more will run together than one by one.
            passed = job < joins and later_s > turn_s and self._hopeful(job, end_s)
            if passed or self._in_time(job, turn_s):
                return False
        return True

    def _hopeful(self, job: EdgeJob, start_s: float) -> bool:
        return equations.on_time(start_s + job.tail_s + self.answer_s, job.deadline_s)

    def _in_time(self, job: EdgeJob, end_s: float) -> bool:
        return equations.on_time(end_s + self.answer_s, job.deadline_s)


def _turn_s(job: EdgeJob, rest: Sequence[EdgeJob], free_s: list[float]) -> float:
    """When one of the rest is computed if all are served one by one by workers that are free at `free_s`."""
    heapq.heapify(free_s)
    for each in rest:
        end_s = free_s[0] + each.tail_s
        if each is job:
            return end_s
        heapq.heapreplace(free_s, end_s)
    raise AssertionError("the job is not in the line")


class EdgeQueue:
    """The edge under `network`: first come first served by arrival at the edge, W workers, no expired work.

    `busy_until_s` holds the end of what workers compute already, if the queue does not start idle. With `batching`
    what waits for the same block may be run together with the first of the line.
    """

    def __init__(
        self, workers: int, busy_until_s: Sequence[float] = (), batching: Batching | None = None
    ) -> None:
        self._free_s = [*busy_until_s, *[_NEVER] * (workers - len(busy_until_s))]
        heapq.heapify(self._free_s)
        self._jobs: list[EdgeJob] = []
        self._batching = batching if batching is not None and batching.most > 1 else None

    def add(self, job: EdgeJob) -> None:
        """Announce work that will reach the edge at `job.arrival_s`."""
        heapq.heappush(self._jobs, job)

    def advance(self, now_s: float) -> list[Started]:
        """Start what starts by `now_s`."""
        started: list[Started] = []
        while self._jobs:
            start_s = max(self._jobs[0].arrival_s, self._free_s[0])
            if start_s > now_s:
                break
            job = heapq.heappop(self._jobs)
            if not equations.on_time(start_s, job.deadline_s):
                started.append(Started(job, None, 0.0))
                continue
            batch, takes_s = [job], job.tail_s
            if self._batching is not None:
                line = [job, *sorted(self.here(start_s))]
                batch, takes_s = self._batching.begin(line, start_s, self._free_s[1:])
            heapq.heapreplace(self._free_s, start_s + takes_s)
            started.extend(Started(each, start_s, takes_s) for each in batch)
            if len(batch) > 1:
                self._jobs = [other for other in self._jobs if not any(other is each for each in batch)]
                heapq.heapify(self._jobs)
        return started

    def here(self, now_s: float) -> list[EdgeJob]:
        """The work that has reached the edge and waits, in no order."""
        return [job for job in self._jobs if job.arrival_s <= now_s]

    def with_jobs(self, jobs: Iterable[EdgeJob]) -> EdgeQueue:
        """The same workers, busy as they are, with other work before them."""
        other = EdgeQueue(len(self._free_s), self._free_s, self._batching)
        for job in jobs:
            other.add(job)
        return other

    def forecast(self) -> tuple[FloatArray, FloatArray]:
        """(J,) arrivals of the jobs that have not started, and (J + 1,) when work behind the first j can start."""
        free_s = list(self._free_s)
        jobs = sorted(self._jobs)
        joined: set[int] = set()
        arrivals_s, after_s = [], [free_s[0]]
        for place, job in enumerate(jobs):
            start_s = max(job.arrival_s, free_s[0])
            if id(job) not in joined and equations.on_time(start_s, job.deadline_s):
                takes_s = job.tail_s
                if self._batching is not None:
                    end = bisect_right(jobs, start_s, lo=place + 1, key=attrgetter("arrival_s"))
                    line = jobs[place:end]
                    if joined:
                        line = [each for each in line if id(each) not in joined]
                    batch, takes_s = self._batching.begin(line, start_s, free_s[1:])
                    joined.update(id(each) for each in batch[1:])
                heapq.heapreplace(free_s, start_s + takes_s)
            arrivals_s.append(job.arrival_s)
            after_s.append(free_s[0])
        return np.array(arrivals_s), np.array(after_s)
