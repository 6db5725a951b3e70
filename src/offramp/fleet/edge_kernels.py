"""The edge of the compiled simulator: workers, the jobs that wait for them, and what they run together.

The same as `offramp.edge_queue`, on arrays: jobs lie in order of arrival at the edge, and a line is the positions of
some of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from offramp import equations
from offramp.equations import BoolArray, FloatArray, IntArray
from offramp.fleet.tally import LATE, ON_TIME, UNFINISHED
from offramp.policies.planning.shared_kernels import offloaded_finish, on_time
from offramp.solvers.compiled import compiled

batch_duration: Any = compiled(equations.batch_duration)


class World(NamedTuple):
    """A system and a demand.

    Attributes:
        head_s, upload_s, tail_s, gain: (kinds, sizes, rows) of the option tables of the devices' kinds.
        exit, cut, local: (rows,) of the same tables.
        kinds: (N,) each device's kind.
        size, budget_s: (sizes,) inputs and relative deadline, seconds.
        network: whether the timing model is `network`; the terms after it are its own, see `NetworkTerms`.
        decode_s: (sizes, rows) what decoding adds to the edge's work.
        tails_s: (exits, inputs + 1, layers + 1) what the layers behind each cut take for so many inputs, for tasks that
            are run together; no inputs where none are.
    """

    head_s: FloatArray
    upload_s: FloatArray
    tail_s: FloatArray
    gain: FloatArray
    exit: IntArray
    cut: IntArray
    local: BoolArray
    kinds: IntArray
    size: FloatArray
    budget_s: FloatArray
    network: bool
    decision_s: float
    link_delay_s: float
    answer_s: float
    max_batch: int
    decode_s: FloatArray
    tails_s: FloatArray


class Standing(NamedTuple):
    """A stream as it stands: what is busy until when, and the jobs that the edge has yet to start, by arrival there.

    Attributes:
        device_free_s, link_free_s: (N,) instants.
        worker_free_s: (W,) instants, ascending; under `paper` there is one.
        job_s: (capacity, 3) a job's arrival at the edge, deadline and work there; seconds.
        job: (capacity, 2) its size and row.
        span: (2,) the jobs are those from span[0] to before span[1].
        forecast_arrival_s, forecast_free_s: (capacity,), (capacity + 1,): see `Backlog`; written anew for each task.
        busy_s: (1,) seconds that the workers have computed, or are to compute for what has begun.
    """

    device_free_s: FloatArray
    link_free_s: FloatArray
    worker_free_s: FloatArray
    job_s: FloatArray
    job: IntArray
    span: IntArray
    forecast_arrival_s: FloatArray
    forecast_free_s: FloatArray
    busy_s: FloatArray


@compiled
def _occupy(free_s: FloatArray, until_s: float) -> None:
    """Give the worker that is free first work until an instant; `free_s` stays ascending."""
    place = 0
    while place + 1 < len(free_s) and free_s[place + 1] < until_s:
        free_s[place] = free_s[place + 1]
        place += 1
    free_s[place] = until_s


@compiled
def count(tally: IntArray, size: int, row: int, finish_s: float, deadline_s: float) -> None:
    """Count a task that has finished."""
    tally[size, row + 1, ON_TIME if on_time(finish_s, deadline_s) else LATE] += 1


@compiled
def _hopeful(world: World, start_s: float, tail_s: float, deadline_s: float) -> bool:
    """Whether work that begins at an instant is answered in time."""
    in_time: bool = on_time(offloaded_finish(start_s, tail_s, world.answer_s), deadline_s)
    return in_time


@compiled
def _together(world: World, standing: Standing, line: IntArray, batch: BoolArray) -> float:
    """Seconds for the jobs of a line that are marked in `batch`, run together."""
    inputs = 0.0
    decode_s = np.empty(batch.sum())
    place = 0
    for at in range(len(line)):
        if batch[at]:
            size, row = standing.job[line[at]]
            inputs += world.size[size]
            decode_s[place] = world.decode_s[size, row]
            place += 1
    first = standing.job[line[0], 1]
    seconds: float = batch_duration(
        world.tails_s[world.exit[first] - 1, int(inputs)], world.cut[first], decode_s
    )
    return seconds


@compiled
def _ends(
    standing: Standing,
    line: IntArray,
    batch: BoolArray,
    takes_s: float,
    start_s: float,
    others_free_s: FloatArray,
    ends_s: FloatArray,
) -> None:
    """Write when each of a line is computed if the batch is run first and all the rest one by one."""
    free_s = np.maximum(start_s, others_free_s)
    free_s = np.sort(np.append(free_s, start_s + takes_s))
    for at in range(len(line)):
        if batch[at]:
            ends_s[at] = start_s + takes_s
        else:
            ends_s[at] = free_s[0] + standing.job_s[line[at], 2]
            _occupy(free_s, ends_s[at])


@compiled
def begin(
    world: World,
    standing: Standing,
    line: IntArray,
    start_s: float,
    others_free_s: FloatArray,
    batch: BoolArray,
) -> float:
    """Mark what a worker that is free at `start_s` runs of a line, the first and what may join it; gives its seconds.

    The rules are those of `Batching.begin`.
    """
    batch[:] = False
    batch[0] = True
    takes_s: float = standing.job_s[line[0], 2]
    if world.max_batch == 1 or len(line) == 1:
        return takes_s
    first = standing.job[line[0], 1]
    before_s, after_s = np.empty(len(line)), np.empty(len(line))
    joined = 1
    for at in range(1, len(line)):
        _, deadline_s, tail_s = standing.job_s[line[at]]
        row = standing.job[line[at], 1]
        if world.exit[row] != world.exit[first] or world.cut[row] != world.cut[first]:
            continue
        if not _hopeful(world, start_s, tail_s, deadline_s):
            continue
        if joined == world.max_batch:
            break
        if joined == 1:
            _ends(standing, line, batch, takes_s, start_s, others_free_s, before_s)
        batch[at] = True
        wider_s = _together(world, standing, line, batch)
        _ends(standing, line, batch, wider_s, start_s, others_free_s, after_s)
        if not _good(world, standing, line, at, before_s, after_s, start_s + takes_s):
            batch[at] = False
            break
        takes_s = wider_s
        before_s[:] = after_s
        joined += 1
    return takes_s


@compiled
def _good(
    world: World,
    standing: Standing,
    line: IntArray,
    joins: int,
    before_s: FloatArray,
    after_s: FloatArray,
    free_s: float,
) -> bool:
    """Whether one of a line may join what a worker would have done at `free_s` without it: see `Batching`."""
    if after_s[joins] > before_s[joins]:
        return False
    for at in range(len(line)):
        _, deadline_s, tail_s = standing.job_s[line[at]]
        if _hopeful(world, after_s[at], 0.0, deadline_s):
            continue
        passed = at < joins and after_s[at] > before_s[at]
        if at == joins or (passed and _hopeful(world, free_s, tail_s, deadline_s)):
            return False
        if _hopeful(world, before_s[at], 0.0, deadline_s):
            return False
    return True


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
        _occupy(free_s, start_s + takes_s)
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
            _occupy(free_s, start_s + takes_s)
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
