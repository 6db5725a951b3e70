"""The simulator as loops over numbers that numba compiles: one stream of tasks through one edge and its devices.

Times come from `offramp.equations`, compiled as they stand, on instants of the same clock as in `offramp.state`, so
that every decision and every outcome is the plain simulator's. Importing this module loads numba.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from offramp import equations
from offramp.equations import FloatArray, IntArray
from offramp.fleet.edge_kernels import add_job, count, forecast
from offramp.fleet.tally import UNFINISHED
from offramp.fleet.world import Standing, World
from offramp.policies.planning.network_kernels import edge_start
from offramp.policies.planning.shared_kernels import (
    network_arrival,
    offloaded_finish,
    on_time,
    paper_timeline,
)
from offramp.solvers.compiled import compiled

decided: Any = compiled(equations.decided)


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
def find(world: World, standing: Standing, arrival_s: float, size: int, device: int) -> Found:
    """What a decision about a task finds on its arrival; the edge must have run to that instant."""
    jobs = forecast(world, standing) if world.network else 0
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
        standing.busy_s[0] += tail_s
        count(tally, size, row, line.finish_s, found.deadline_s)
        return
    start_s, send_s, sent_s, arrival_s = network_arrival(
        found.ready_s, found.device_free_s, found.link_free_s, world.link_delay_s, head_s, upload_s
    )
    if not on_time(start_s, found.deadline_s):
        tally[size, row + 1, UNFINISHED] += 1
        return
    standing.device_free_s[device] = send_s
    if world.local[row]:
        count(tally, size, row, send_s, found.deadline_s)
    elif on_time(arrival_s, found.deadline_s):
        standing.link_free_s[device] = sent_s
        add_job(standing, arrival_s, found.deadline_s, tail_s, size, row)
    else:
        tally[size, row + 1, UNFINISHED] += 1
