"""The edge of the compiled simulator: workers, and the jobs that wait for them.

The same as `offramp.edge_queue`, on arrays: jobs lie in order of arrival at the edge, and a line is the positions of
some of them.
"""

from __future__ import annotations

import numpy as np

from offramp.equations import BoolArray, FloatArray, IntArray
from offramp.fleet.batch_kernels import begin, occupy
from offramp.fleet.tally import LATE, ON_TIME, UNFINISHED
from offramp.fleet.world import Standing, World
from offramp.policies.planning.shared_kernels import offloaded_finish, on_time
from offramp.solvers.compiled import compiled


@compiled
def count(tally: IntArray, size: int, row: int, finish_s: float, deadline_s: float) -> None:
    """Count a task that has finished."""
    tally[size, row + 1, ON_TIME if on_time(finish_s, deadline_s) else LATE] += 1


@compiled
def run_edge(world: World, standing: Standing, now_s: float, tally: IntArray) -> None:
    """Start what the edge starts by an instant, in order of arrival there; what has expired is not started."""
    free_s, span = standing.worker_free_s, standing.span
    while span[0] < span[1]:
        start_s = max(standing.job_s[span[0], 0], free_s[0])
        if start_s > now_s:
            break
        if not on_time(start_s, standing.job_s[span[0], 1]):
            size, row = standing.job[span[0]]
            tally[size, row + 1, UNFINISHED] += 1
            span[0] += 1
            continue
        here = span[0] + 1
        while here < span[1] and standing.job_s[here, 0] <= start_s:
            here += 1
        line = np.arange(span[0], here if world.max_batch > 1 else span[0] + 1)
        batch = np.zeros(len(line), np.bool_)
        takes_s = begin(world, standing, line, start_s, free_s[1:], batch)
        occupy(free_s, start_s + takes_s)
        standing.busy_s[0] += takes_s
        finish_s = offloaded_finish(start_s, takes_s, world.answer_s)
        # What is left of the line moves up to those behind it.
        place = line[-1]
        for at in range(len(line) - 1, -1, -1):
            if batch[at]:
                size, row = standing.job[line[at]]
                count(tally, size, row, finish_s, standing.job_s[line[at], 1])
            else:
                standing.job_s[place] = standing.job_s[line[at]]
                standing.job[place] = standing.job[line[at]]
                place -= 1
        span[0] = place + 1


@compiled
def forecast(world: World, standing: Standing) -> int:
    """Write when work behind each of the jobs can start; gives how many jobs there are."""
    first, jobs = standing.span[0], standing.span[1] - standing.span[0]
    standing.forecast_free_s[0] = standing.worker_free_s[0]
    if jobs == 0:
        return 0
    free_s = standing.worker_free_s.copy()
    joined = np.zeros(jobs, np.bool_)
    for place in range(jobs):
        arrival_s, deadline_s, tail_s = standing.job_s[first + place]
        start_s = max(arrival_s, free_s[0])
        if not joined[place] and on_time(start_s, deadline_s):
            takes_s = tail_s
            if world.max_batch > 1:
                takes_s = _foresee(world, standing, place, start_s, free_s[1:], joined)
            occupy(free_s, start_s + takes_s)
        standing.forecast_arrival_s[place] = arrival_s
        standing.forecast_free_s[place + 1] = free_s[0]
    return int(jobs)


@compiled
def _foresee(
    world: World,
    standing: Standing,
    place: int,
    start_s: float,
    others_free_s: FloatArray,
    joined: BoolArray,
) -> float:
    """Mark as joined what would be run with the job at a place; gives the seconds of all."""
    first = standing.span[0]
    line = np.empty(len(joined) - place, np.int64)
    members = 0
    for other in range(place, len(joined)):
        if other == place or (not joined[other] and standing.job_s[first + other, 0] <= start_s):
            line[members] = first + other
            members += 1
    line = line[:members]
    batch = np.zeros(members, np.bool_)
    takes_s: float = begin(world, standing, line, start_s, others_free_s, batch)
    for at in range(members):
        if batch[at]:
            joined[line[at] - first] = True
    return takes_s


@compiled
def add_job(
    standing: Standing, arrival_s: float, deadline_s: float, tail_s: float, size: int, row: int
) -> None:
    """Put a job behind all that reach the edge no later."""
    job_s, job, span = standing.job_s, standing.job, standing.span
    place = span[1]
    while place > span[0] and job_s[place - 1, 0] > arrival_s:
        job_s[place] = job_s[place - 1]
        job[place] = job[place - 1]
        place -= 1
    job_s[place, 0], job_s[place, 1], job_s[place, 2] = arrival_s, deadline_s, tail_s
    job[place, 0], job[place, 1] = size, row
    span[1] += 1


@compiled
def has_room(standing: Standing) -> bool:
    """Whether another job can be held; moves them to the front if that makes room."""
    span = standing.span
    if span[1] < len(standing.job):
        return True
    if span[0] == 0:
        return False
    count = span[1] - span[0]
    for place in range(count):
        standing.job_s[place] = standing.job_s[span[0] + place]
        standing.job[place] = standing.job[span[0] + place]
    span[0], span[1] = 0, count
    return True
