"""A stream of tasks under `paper` timing as numbers that numba compiles: what the system is, and one task's passage.

A stream stands where its lags say, `now`, (N + 1,): seconds until each device can start, then until the edge can.
An action is 0 to drop the task, or 1 + row of the option table.
"""

from __future__ import annotations

from typing import NamedTuple

from offramp import equations
from offramp.equations import BoolArray, FloatArray, IntArray
from offramp.policies.ddqn_kernels import compiled

paper_timeline = compiled(equations.paper_timeline)
on_time = compiled(equations.on_time)

STATE = 3
"""Numbers in the paper's state."""


class World(NamedTuple):
    """A system for the loop: columns (kinds, sizes, options), budgets and values of the sizes, kinds of devices."""

    head_s: FloatArray
    upload_s: FloatArray
    tail_s: FloatArray
    gain: FloatArray
    budget_s: FloatArray
    size: FloatArray
    kinds: IntArray


@compiled
def observe(
    state: FloatArray,
    size: float,
    budget_s: float,
    device_lag_s: float,
    edge_lag_s: float,
    scale: FloatArray,
) -> None:
    """state_n of Section III-B over `scale` (greatest size, longest budget): D, budget left, overlap at the edge."""
    state[0] = size / scale[0]
    state[1] = (budget_s - max(device_lag_s, 0.0)) / scale[1]
    state[2] = max(edge_lag_s, 0.0) / scale[1]


@compiled
def allow(
    allowed: BoolArray, world: World, kind: int, size: int, device_lag_s: float, edge_lag_s: float
) -> None:
    """The guard: dropping, and each option that is predicted to finish in time."""
    allowed[0] = True
    for row in range(world.gain.shape[2]):
        line = paper_timeline(
            0.0,
            device_lag_s,
            edge_lag_s,
            world.head_s[kind, size, row],
            world.upload_s[kind, size, row],
            world.tail_s[kind, size, row],
        )
        allowed[row + 1] = on_time(line[3], world.budget_s[size])


@compiled
def step_world(world: World, now: FloatArray, action: int, device: int, size: int) -> float:
    """Take an action for a task that has just arrived: moves the lags in `now`, (N + 1,), and gives the gain."""
    if action == 0:
        return 0.0
    kind, row = world.kinds[device], action - 1
    line = paper_timeline(
        0.0,
        now[device],
        now[-1],
        world.head_s[kind, size, row],
        world.upload_s[kind, size, row],
        world.tail_s[kind, size, row],
    )
    now[device], now[-1] = line[1], line[3]
    earned: float = world.gain[kind, size, row] if on_time(line[3], world.budget_s[size]) else 0.0
    return earned
