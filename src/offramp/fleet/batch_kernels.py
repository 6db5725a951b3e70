"""What a worker of the compiled simulator's edge runs together: `offramp.edge_queue.Batching`, on arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from offramp import equations
from offramp.edge_queue import WORTH
from offramp.equations import BoolArray, FloatArray, IntArray
from offramp.fleet.world import Standing, World
from offramp.policies.planning.shared_kernels import offloaded_finish, on_time
from offramp.solvers.compiled import compiled

batch_duration: Any = compiled(equations.batch_duration)


@compiled
def occupy(free_s: FloatArray, until_s: float) -> None:
    """Give the worker that is free first work until an instant; `free_s` stays ascending."""
    place = 0
    while place + 1 < len(free_s) and free_s[place + 1] < until_s:
        free_s[place] = free_s[place + 1]
        place += 1
    free_s[place] = until_s


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
            occupy(free_s, ends_s[at])


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
        if wider_s > takes_s + (1.0 - WORTH) * tail_s:
            batch[at] = False
            break
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
