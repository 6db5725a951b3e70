"""Small instances on a grid of milliseconds: ties, zero times, simultaneous arrivals and unequal devices are common."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from offramp.instance import Instance
from offramp.options import Gain, System
from offramp.profile import ExitCoefficients
from offramp.task import Task

TICK_S = 0.001
_LINKS = (50_000.0, 100_000.0, 200_000.0)


def build(
    rng: np.random.Generator,
    tasks: int,
    devices: int,
    exits: int,
    most_layers: int,
    gap_ms: int,
) -> Instance:
    """An instance from a generator: sizes 1..3, up to `gap_ms` between arrivals, budgets of 0 to some 60 ms."""

    def rows(count: int, most_ms: int) -> np.ndarray:
        return rng.integers(0, most_ms + 1, (count, 2)) * TICK_S

    table = []
    for _ in range(exits):
        layers = int(rng.integers(1, most_layers + 1))
        # 200 bytes are a whole number of ticks on every link.
        crossing = rng.integers(0, 6, (layers + 1, 2)) * 200.0
        accuracy = float(rng.choice([0.3, 0.5, 0.52, 0.7, 0.9, 1.0]))
        table.append(ExitCoefficients(accuracy, rows(layers, 4), rows(layers, 2), crossing))
    system = System(
        tuple(table),
        tuple(float(x) for x in rng.choice([0.0, 1.0, 2.0, 3.0], devices)),
        tuple(float(x) for x in rng.choice(_LINKS, devices)),
        Gain(float(rng.choice([0.0, 0.1, 1.0])), float(rng.choice([0.0, 16.0]))),
    )
    arrivals = np.cumsum(rng.integers(0, gap_ms + 1, tasks))
    drawn = tuple(
        Task(
            float(arrival * TICK_S),
            int(rng.integers(1, 4)),
            float(rng.integers(0, 61) * TICK_S),
            int(rng.integers(devices)),
        )
        for arrival in arrivals
    )
    return Instance(system, drawn)


def build_small(rng: np.random.Generator) -> Instance:
    """M <= 5, N <= 3, u <= 2: with more choices for each cut still little enough for brute force."""
    return build(rng, int(rng.integers(1, 6)), int(rng.integers(1, 4)), int(rng.integers(1, 3)), 2, 20)


def with_exits(instance: Instance, exits: Iterable[ExitCoefficients]) -> Instance:
    """The same tasks on a system with other exits."""
    return replace(instance, system=replace(instance.system, exits=tuple(exits)))


@st.composite
def tiny_instances(draw: st.DrawFn) -> Instance:
    """M <= 6, N <= 5, u <= 6, with few enough choices for brute force."""
    tasks = draw(st.integers(1, 6))
    exits = draw(st.integers(1, 6))
    most_layers = 1 if exits > 2 else 2
    seed = draw(st.integers(0, 2**32 - 1))
    return build(
        np.random.default_rng(seed),
        tasks,
        draw(st.integers(1, 5)),
        exits,
        most_layers,
        draw(st.integers(0, 20)),
    )


@st.composite
def streams(draw: st.DrawFn, most_tasks: int = 40) -> Instance:
    """M <= 40, N <= 5, u <= 6."""
    seed = draw(st.integers(0, 2**32 - 1))
    return build(
        np.random.default_rng(seed),
        draw(st.integers(1, most_tasks)),
        draw(st.integers(1, 5)),
        draw(st.integers(1, 6)),
        draw(st.integers(1, 4)),
        draw(st.integers(0, 20)),
    )
