"""How far behind devices, links and edge are as tasks are decided: one state a timing model.

The simulator lays a stream out in time with these; the runtime's edge keeps one as its forecast, and corrects it
by what it sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from offramp import equations
from offramp.edge_queue import Batching, EdgeJob, EdgeQueue
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


class NetworkState:
    """What the runtime does: one head and one upload at a time a device, and the edge's queue (design §4)."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._device_free_s = np.full(system.devices, _NEVER)
        self._link_free_s = np.full(system.devices, _NEVER)
        self._queue = EdgeQueue(system.network.edge_workers, batching=batching_of(system))
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
            self._finish(number, None, 0.0)
            return
        job = EdgeJob(
            arrival_s, number, float(options.tail_s[row]), task.deadline_s, number, task.size, decision
        )
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
        for job, start_s, takes_s in self._queue.advance(now_s):
            if start_s is not None:
                self._finish(job.order, start_s, takes_s)

    def _finish(self, number: int, edge_start_s: float | None, tail_s: float) -> None:
        task, placed = self._tasks[number], self._rows[number]
        options = self._system.options(task.device, task.size)
        row = options.index(placed.exit, placed.cut, placed.codec)
        finish_s = float(
            equations.network_finish(
                placed.send_s or 0.0,
                edge_start_s or 0.0,
                tail_s,
                self._system.network.answer_s,
                options.local[row],
            )
        )
        met = equations.on_time(finish_s, task.deadline_s)
        gain = float(options.gain[row]) if met else 0.0
        self._rows[number] = replace(
            placed, edge_start_s=edge_start_s, finish_s=finish_s, on_time=met, gain=gain
        )


def batching_of(system: System) -> Batching:
    """What the system's edge may run together, timed by its coefficients."""
    network = system.network

    def duration(jobs: Sequence[EdgeJob]) -> float:
        return system.batch_s([(job.decision, job.size) for job in jobs])

    return Batching(network.max_batch, network.answer_s, duration)


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
