"""The simulator as loops over numbers that numba compiles: one stream of tasks through one edge and its devices.

Times come from `offramp.equations`, compiled as they stand, on instants of the same clock as in `offramp.state`, so
that every decision and every outcome is the plain simulator's. Importing this module loads numba.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from offramp import equations
from offramp.equations import BoolArray, FloatArray, IntArray
from offramp.fleet.tally import LATE, ON_TIME, UNFINISHED
from offramp.policies.planning.network_kernels import edge_start
from offramp.policies.planning.shared_kernels import (
    network_arrival,
    offloaded_finish,
    on_time,
    paper_timeline,
)
from offramp.solvers.compiled import compiled

decided: Any = compiled(equations.decided)


class World(NamedTuple):
    """A system and a demand.

    Attributes:
        head_s, upload_s, tail_s, gain: (kinds, sizes, rows) of the option tables of the devices' kinds.
        exit, cut, local: (rows,) of the same tables.
        kinds: (N,) each device's kind.
        size, budget_s: (sizes,) inputs and relative deadline, seconds.
        network: whether the timing model is `network`; the terms after it are its own, see `NetworkTerms`.
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


class Standing(NamedTuple):
    """A stream as it stands: what is busy until when, and the jobs that the edge has yet to start, by arrival there.

    Attributes:
        device_free_s, link_free_s: (N,) instants.
        worker_free_s: (W,) instants, ascending; under `paper` there is one.
        job_s: (capacity, 3) a job's arrival at the edge, deadline and work there; seconds.
        job: (capacity, 2) its size and row.
        span: (2,) the jobs are those from span[0] to before span[1].
        forecast_arrival_s, forecast_free_s: (capacity,), (capacity + 1,): see `Backlog`; written anew for each task.
    """

    device_free_s: FloatArray
    link_free_s: FloatArray
    worker_free_s: FloatArray
    job_s: FloatArray
    job: IntArray
    span: IntArray
    forecast_arrival_s: FloatArray
    forecast_free_s: FloatArray


class Found(NamedTuple):
    """What a decision finds: the task, and how far behind the system is, in instants (see `Backlog`).

    `kind` and `size` index the world's tables; `lagging_s` is the release of every device, (N,).
    """

    arrival_s: float
    ready_s: float
    deadline_s: float
    device: int
    kind: int
    size: int
    device_free_s: float
    link_free_s: float
    edge_arrivals_s: FloatArray
    edge_free_s: FloatArray
    lagging_s: FloatArray


@compiled
def predict(world: World, found: Found, row: int) -> tuple[float, float, float]:
    """(send, start at the edge, finish) of an option as they look from the decision."""
    head_s, upload_s = world.head_s[found.kind, found.size, row], world.upload_s[found.kind, found.size, row]
    tail_s = world.tail_s[found.kind, found.size, row]
    if not world.network:
        line = paper_timeline(
            found.arrival_s, found.device_free_s, found.edge_free_s[-1], head_s, upload_s, tail_s
        )
        return line.send_s, line.edge_start_s, line.finish_s
    _, send_s, _, arrival_s = network_arrival(
        found.ready_s, found.device_free_s, found.link_free_s, world.link_delay_s, head_s, upload_s
    )
    start_s = edge_start(arrival_s, found.edge_arrivals_s, found.edge_free_s)
    finish_s = send_s if world.local[row] else offloaded_finish(start_s, tail_s, world.answer_s)
    return send_s, start_s, finish_s


@compiled
def _occupy(free_s: FloatArray, until_s: float) -> None:
    """Give the worker that is free first work until an instant; `free_s` stays ascending."""
    place = 0
    while place + 1 < len(free_s) and free_s[place + 1] < until_s:
        free_s[place] = free_s[place + 1]
        place += 1
    free_s[place] = until_s


@compiled
def _count(tally: IntArray, size: int, row: int, finish_s: float, deadline_s: float) -> None:
    tally[size, row + 1, ON_TIME if on_time(finish_s, deadline_s) else LATE] += 1


@compiled
def run_edge(world: World, standing: Standing, now_s: float, tally: IntArray) -> None:
    """Start what the edge starts by an instant, in order of arrival there; what has expired is not started."""
    free_s, span = standing.worker_free_s, standing.span
    while span[0] < span[1]:
        arrival_s, deadline_s, tail_s = standing.job_s[span[0]]
        start_s = max(arrival_s, free_s[0])
        if start_s > now_s:
            break
        size, row = standing.job[span[0]]
        span[0] += 1
        if on_time(start_s, deadline_s):
            _occupy(free_s, start_s + tail_s)
            _count(tally, size, row, offloaded_finish(start_s, tail_s, world.answer_s), deadline_s)
        else:
            tally[size, row + 1, UNFINISHED] += 1


@compiled
def _forecast(standing: Standing) -> int:
    """Write when work behind each of the jobs can start; gives how many jobs there are."""
    first, count = standing.span[0], standing.span[1] - standing.span[0]
    standing.forecast_free_s[0] = standing.worker_free_s[0]
    if count == 0:
        return 0
    free_s = standing.worker_free_s.copy()
    for place in range(count):
        arrival_s, deadline_s, tail_s = standing.job_s[first + place]
        start_s = max(arrival_s, free_s[0])
        if on_time(start_s, deadline_s):
            _occupy(free_s, start_s + tail_s)
        standing.forecast_arrival_s[place] = arrival_s
        standing.forecast_free_s[place + 1] = free_s[0]
    return int(count)


@compiled
def _add_job(
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


@compiled
def find(world: World, standing: Standing, arrival_s: float, size: int, device: int) -> Found:
    """What a decision about a task finds on its arrival; the edge must have run to that instant."""
    jobs = _forecast(standing) if world.network else 0
    if not world.network:
        standing.forecast_free_s[0] = standing.worker_free_s[0]
    return Found(
        arrival_s,
        decided(arrival_s, arrival_s, world.decision_s),
        arrival_s + world.budget_s[size],
        device,
        world.kinds[device],
        size,
        standing.device_free_s[device],
        standing.link_free_s[device],
        standing.forecast_arrival_s[:jobs],
        standing.forecast_free_s[: jobs + 1],
        standing.device_free_s,
    )


@compiled
def commit(world: World, standing: Standing, found: Found, row: int, tally: IntArray) -> None:
    """Take a decision, as the states of `offramp.state` do; row -1 drops the task."""
    size, device = found.size, found.device
    if row < 0:
        tally[size, 0, UNFINISHED] += 1
        return
    head_s, upload_s = world.head_s[found.kind, size, row], world.upload_s[found.kind, size, row]
    tail_s = world.tail_s[found.kind, size, row]
    if not world.network:
        line = paper_timeline(
            found.arrival_s, found.device_free_s, standing.worker_free_s[0], head_s, upload_s, tail_s
        )
        standing.device_free_s[device] = line.send_s
        standing.worker_free_s[0] = line.finish_s
        _count(tally, size, row, line.finish_s, found.deadline_s)
        return
    start_s, send_s, sent_s, arrival_s = network_arrival(
        found.ready_s, found.device_free_s, found.link_free_s, world.link_delay_s, head_s, upload_s
    )
    if not on_time(start_s, found.deadline_s):
        tally[size, row + 1, UNFINISHED] += 1
        return
    standing.device_free_s[device] = send_s
    if world.local[row]:
        _count(tally, size, row, send_s, found.deadline_s)
    elif on_time(arrival_s, found.deadline_s):
        standing.link_free_s[device] = sent_s
        _add_job(standing, arrival_s, found.deadline_s, tail_s, size, row)
    else:
        tally[size, row + 1, UNFINISHED] += 1
