"""How far behind devices, links and edge are as tasks are decided: one state a timing model.

The simulator lays a stream out in time with these; the runtime's edge keeps one as its forecast, and corrects it
by what it sees.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from offramp import equations
from offramp.equations import FloatArray
from offramp.instance import Instance
from offramp.observation import Backlog, Observation, Timing
from offramp.options import System
from offramp.schedule import DROPPED, Schedule, ScheduledTask, Status
from offramp.task import Decision, Task

_NEVER = float("-inf")
_NO_ARRIVALS: FloatArray = np.empty(0)


class State(Protocol):
    """A system as it stands between two decisions. Tasks come in order of arrival."""

    def observe(self, task: Task) -> Observation:
        """What a policy may see when `task` arrives."""
        ...

    def commit(self, observation: Observation, decision: Decision) -> None:
        """Take the decision for the observed task. ValueError if it is none of its options."""
        ...

    def rows(self) -> list[ScheduledTask]:
        """What came of every committed task, in order; under `network` this lets the edge's queue run empty."""
        ...


class PaperState:
    """Section II-B: each device is behind by its own previous task, the edge by the stream's previous task."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._device_free_s = np.full(system.devices, _NEVER)
        self._edge_free_s = np.full(1, _NEVER)
        self._rows: list[ScheduledTask] = []

    def observe(self, task: Task) -> Observation:
        """See `State`."""
        backlog = Backlog(
            self._device_free_s.copy(), self._device_free_s.copy(), _NO_ARRIVALS, self._edge_free_s.copy()
        )
        options = self._system.options(task.device, task.size)
        return Observation(task, task.arrival_s, options, backlog, "paper", self._system.network)

    def commit(self, observation: Observation, decision: Decision) -> None:
        """See `State`."""
        if decision.exit == 0:
            self._rows.append(DROPPED)
            return
        task, options = observation.task, observation.options
        row = options.row_of(decision)
        device_start_s, send_s, edge_start_s, finish_s = (
            float(instant)
            for instant in equations.paper_timeline(
                task.arrival_s,
                self._device_free_s[task.device],
                self._edge_free_s[0],
                options.head_s[row],
                options.upload_s[row],
                options.tail_s[row],
            )
        )
        self._device_free_s[task.device] = send_s
        self._edge_free_s[0] = finish_s
        met = equations.on_time(finish_s, task.deadline_s)
        gain = float(options.gain[row]) if met else 0.0
        self._rows.append(
            ScheduledTask(
                decision.exit,
                decision.cut,
                device_start_s,
                send_s,
                edge_start_s,
                finish_s,
                met,
                gain,
                decision.codec,
            )
        )

    def rows(self) -> list[ScheduledTask]:
        """See `State`."""
        return self._rows


@dataclass(order=True, slots=True)
class EdgeJob:
    """Work on its way to the edge or waiting there; ordered by arrival at the edge, then by decision."""

    arrival_s: float
    order: int
    tail_s: float = field(compare=False)
    deadline_s: float = field(compare=False)
    key: Hashable = field(compare=False)


class EdgeQueue:
    """The edge under `network`: first come first served by arrival at the edge, W workers, no expired work.

    `busy_until_s` holds the end of what workers compute already, if the queue does not start idle.
    """

    def __init__(self, workers: int, busy_until_s: Sequence[float] = ()) -> None:
        self._free_s = [*busy_until_s, *[_NEVER] * (workers - len(busy_until_s))]
        heapq.heapify(self._free_s)
        self._jobs: list[EdgeJob] = []

    def add(self, job: EdgeJob) -> None:
        """Announce work that will reach the edge at `job.arrival_s`."""
        heapq.heappush(self._jobs, job)

    def advance(self, now_s: float) -> list[tuple[EdgeJob, float | None]]:
        """Start what starts by `now_s`: (job, instant it starts; None if it had expired by then)."""
        started: list[tuple[EdgeJob, float | None]] = []
        while self._jobs:
            start_s = max(self._jobs[0].arrival_s, self._free_s[0])
            if start_s > now_s:
                break
            job = heapq.heappop(self._jobs)
            if not equations.on_time(start_s, job.deadline_s):
                started.append((job, None))
                continue
            heapq.heapreplace(self._free_s, start_s + job.tail_s)
            started.append((job, start_s))
        return started

    def here(self, now_s: float) -> list[EdgeJob]:
        """The work that has reached the edge and waits."""
        return [job for job in self._jobs if job.arrival_s <= now_s]

    def with_jobs(self, jobs: Iterable[EdgeJob]) -> EdgeQueue:
        """The same workers, busy as they are, with other work before them."""
        other = EdgeQueue(len(self._free_s), self._free_s)
        for job in jobs:
            other.add(job)
        return other

    def forecast(self) -> tuple[FloatArray, FloatArray]:
        """(J,) arrivals of the jobs that have not started, and (J + 1,) when work behind the first j can start."""
        free_s = list(self._free_s)
        arrivals_s, after_s = [], [free_s[0]]
        for job in sorted(self._jobs):
            start_s = max(job.arrival_s, free_s[0])
            if equations.on_time(start_s, job.deadline_s):
                heapq.heapreplace(free_s, start_s + job.tail_s)
            arrivals_s.append(job.arrival_s)
            after_s.append(free_s[0])
        return np.array(arrivals_s), np.array(after_s)


class NetworkState:
    """What the runtime does: one head and one upload at a time a device, and the edge's queue (design §4)."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._device_free_s = np.full(system.devices, _NEVER)
        self._link_free_s = np.full(system.devices, _NEVER)
        self._queue = EdgeQueue(system.network.edge_workers)
        self._rows: list[ScheduledTask] = []
        self._tasks: list[Task] = []

    def observe(self, task: Task) -> Observation:
        """See `State`."""
        self._run_edge(task.arrival_s)
        backlog = Backlog(self._device_free_s.copy(), self._link_free_s.copy(), *self._queue.forecast())
        options = self._system.options(task.device, task.size)
        return Observation(task, task.arrival_s, options, backlog, "network", self._system.network)

    def commit(self, observation: Observation, decision: Decision) -> None:
        """See `State`. A head that could only start, or an upload that could only arrive, too late is not started."""
        task, options = observation.task, observation.options
        self._tasks.append(task)
        if decision.exit == 0:
            self._rows.append(DROPPED)
            return
        row = options.row_of(decision)
        device_start_s, send_s, sent_s, arrival_s = (
            float(instant)
            for instant in equations.network_arrival(
                observation.ready_s,
                self._device_free_s[task.device],
                self._link_free_s[task.device],
                observation.network.link_delay_s,
                options.head_s[row],
                options.upload_s[row],
            )
        )
        if not equations.on_time(device_start_s, task.deadline_s):
            self._rows.append(placed_task(decision, None, None))
            return
        self._device_free_s[task.device] = send_s
        self._rows.append(placed_task(decision, device_start_s, send_s))
        number = len(self._rows) - 1
        if options.local[row]:
            self._finish(number, None)
            return
        job = EdgeJob(arrival_s, number, float(options.tail_s[row]), task.deadline_s, number)
        self._upload(job, row, send_s, sent_s)

    def _upload(self, job: EdgeJob, row: int, ready_s: float, sent_s: float) -> None:
        """Let what a task's head has made at `ready_s` cross, by `sent_s`, for the edge to serve it as `job`."""
        if equations.on_time(job.arrival_s, job.deadline_s):
            self._link_free_s[self._tasks[job.order].device] = sent_s
            self._queue.add(job)

    def rows(self) -> list[ScheduledTask]:
        """See `State`."""
        self._run_edge(float("inf"))
        return self._rows

    def _run_edge(self, now_s: float) -> None:
        for job, start_s in self._queue.advance(now_s):
            if start_s is not None:
                self._finish(job.order, start_s)

    def _finish(self, number: int, edge_start_s: float | None) -> None:
        task, placed = self._tasks[number], self._rows[number]
        options = self._system.options(task.device, task.size)
        row = options.index(placed.exit, placed.cut, placed.codec)
        finish_s = float(
            equations.network_finish(
                placed.send_s or 0.0,
                edge_start_s or 0.0,
                options.tail_s[row],
                self._system.network.answer_s,
                options.local[row],
            )
        )
        met = equations.on_time(finish_s, task.deadline_s)
        gain = float(options.gain[row]) if met else 0.0
        self._rows[number] = replace(
            placed, edge_start_s=edge_start_s, finish_s=finish_s, on_time=met, gain=gain
        )


def placed_task(decision: Decision, device_start_s: float | None, send_s: float | None) -> ScheduledTask:
    """A task of which no more than this is known yet, or ever comes."""
    return ScheduledTask(
        decision.exit, decision.cut, device_start_s, send_s, None, None, False, 0.0, decision.codec
    )


def make_state(system: System, timing: Timing) -> PaperState | NetworkState:
    """An idle system under a timing model."""
    return PaperState(system) if timing == "paper" else NetworkState(system)


def paper_schedule(
    instance: Instance,
    decisions: Sequence[Decision],
    *,
    upper_bound: float | None = None,
    status: Status = "feasible",
    solve_s: float = 0.0,
) -> Schedule:
    """Lay a solver's decisions out in time under `paper`. ValueError if one is not an option of its task."""
    state = PaperState(instance.system)
    for task, decision in zip(instance.tasks, decisions, strict=True):
        state.commit(state.observe(task), decision)
    rows = tuple(state.rows())
    return Schedule(rows, sum(row.gain for row in rows), upper_bound, status, solve_s)
