"""Tasks that come whatever becomes of the ones before: how many are on time, by the timing model and by a real edge."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from offramp.instance import Instance
from offramp.model.bundle import load_bundle
from offramp.options import Gain, NetworkTerms, System
from offramp.policies.greedy import EdgeOnly
from offramp.profile import ExitCoefficients
from offramp.runtime.client import EdgeClient, TaskRefusedError
from offramp.simulator import simulate
from offramp.task import Task
from serving.exits import Served, inputs

MARGIN = 0.3
"""Share of a budget that plans of the run leave free; the simulation takes the times that it plans with."""


def simulated(exits: Sequence[ExitCoefficients], tasks: Sequence[Task], workers: int, max_batch: int) -> int:
    """Tasks on time by the `network` timing model, over links and devices that take no time."""
    terms = NetworkTerms(0.0, 0.0, 0.0, workers, max_batch)
    devices = 1 + max(task.device for task in tasks)
    system = System(tuple(exits), (1e6,) * devices, (1e12,) * devices, Gain(), terms)
    schedule = simulate(Instance(system, tuple(tasks)), EdgeOnly(), "network")
    return sum(row.on_time for row in schedule.tasks)


def offered(served: Served, port: int, tasks: Sequence[Task]) -> int:
    """Tasks that an edge answers on time, by the clients' clock; a connection for each device."""
    return asyncio.run(_offer(served, port, tasks))


async def _offer(served: Served, port: int, tasks: Sequence[Task]) -> int:
    (spec,) = load_bundle(served.bundle).model.inputs
    devices = range(1 + max(task.device for task in tasks))
    clients = [EdgeClient(port, f"client-{n}", served.sha256, (spec,), MARGIN) for n in devices]
    for client in clients:
        await client.open()
    images = {size: inputs(size) for size in {task.size for task in tasks}}
    on_time = 0
    began_s = time.perf_counter()

    async def one(number: int, task: Task, due_s: float) -> None:
        nonlocal on_time
        batches = images[task.size]
        try:
            await clients[task.device].infer({spec.name: batches[number % len(batches)]}, task.budget_s)
        except TaskRefusedError:
            return
        on_time += time.perf_counter() <= due_s

    running = []
    for number, task in enumerate(tasks):
        if (wait_s := began_s + task.arrival_s - time.perf_counter()) > 0:
            await asyncio.sleep(wait_s)
        # What the clock is late by is not the edge's.
        due_s = max(began_s + task.arrival_s, time.perf_counter()) + task.budget_s
        running.append(asyncio.ensure_future(one(number, task, due_s)))
    await asyncio.gather(*running)
    for client in clients:
        await client.close()
    return on_time
