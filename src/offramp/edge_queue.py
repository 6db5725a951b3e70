"""The edge's queue under `network`: what waits there, when workers begin it, and what they run together."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from offramp import equations
from offramp.equations import FloatArray
from offramp.task import Decision

_NEVER = float("-inf")


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
        for the same block and can be on time, one after the other joins as long as it is on time with the batch, is
        there no later than in its turn if all were served one by one, and no task in the line is late because of it.
        """
        batch, takes_s, rest = [line[0]], line[0].tail_s, list(line[1:])
        candidates = [job for job in rest if job.block == line[0].block and self._hopeful(job, start_s)]
        if self.most == 1 or not candidates:
            return batch, takes_s
        before = self._ends(batch, takes_s, rest, start_s, others_free_s)
        for job in candidates[: self.most - 1]:
            wider = [*batch, job]
            others = [other for other in rest if other is not job]
            wider_s = self.duration(wider)
            after = self._ends(wider, wider_s, others, start_s, others_free_s)
            if not self._good(job, before, after, line, start_s + takes_s):
                break
            batch, takes_s, rest, before = wider, wider_s, others, after
        return batch, takes_s

    def _ends(
        self,
        batch: Sequence[EdgeJob],
        takes_s: float,
        rest: Sequence[EdgeJob],
        start_s: float,
        others_free_s: Sequence[float],
    ) -> dict[int, float]:
        """When what waits is computed if a worker runs `batch` first and all the rest is served one by one."""
        ends_s = {id(job): start_s + takes_s for job in batch}
        free_s = [start_s + takes_s, *(max(start_s, instant_s) for instant_s in others_free_s)]
        heapq.heapify(free_s)
        for job in rest:
            ends_s[id(job)] = free_s[0] + job.tail_s
            heapq.heapreplace(free_s, ends_s[id(job)])
        return ends_s

    def _good(
        self,
        joins: EdgeJob,
        before: dict[int, float],
        after: dict[int, float],
        line: Sequence[EdgeJob],
        free_s: float,
    ) -> bool:
        """Whether a job may join what a worker would have done at `free_s` without it."""
        if after[id(joins)] > before[id(joins)] or not self._in_time(joins, after):
            return False
        late = [job for job in line if not self._in_time(job, after)]
        # What it passes by may only be on time because more will run together than `before` knows.
        passed = [job for job in late if job < joins and after[id(job)] > before[id(job)]]
        if any(self._hopeful(job, free_s) for job in passed):
            return False
        return not any(self._in_time(job, before) for job in late)

    def _hopeful(self, job: EdgeJob, start_s: float) -> bool:
        return equations.on_time(start_s + job.tail_s + self.answer_s, job.deadline_s)

    def _in_time(self, job: EdgeJob, ends_s: dict[int, float]) -> bool:
        return equations.on_time(ends_s[id(job)] + self.answer_s, job.deadline_s)


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
                    behind = [each for each in jobs[place + 1 :] if each.arrival_s <= start_s]
                    line = [job, *(each for each in behind if id(each) not in joined)]
                    batch, takes_s = self._batching.begin(line, start_s, free_s[1:])
                    joined.update(id(each) for each in batch)
                heapq.heapreplace(free_s, start_s + takes_s)
            arrivals_s.append(job.arrival_s)
            after_s.append(free_s[0])
        return np.array(arrivals_s), np.array(after_s)
