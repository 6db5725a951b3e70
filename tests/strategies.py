"""Drawn networks and instances for property tests: small, with ties, zero times and unequal devices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from offramp.instance import Instance
from offramp.options import Gain, NetworkTerms, System
from offramp.profile import CodedCut, ExitCoefficients
from offramp.task import Decision, Task

# Multiples of a coarse step, so that ties and equal instants really occur.
steps = st.integers(0, 8).map(lambda n: n * 0.005)


@st.composite
def exits(draw: st.DrawFn, most: int = 4) -> tuple[ExitCoefficients, ...]:
    """1 to `most` exits with 1 to 4 layers each."""
    table = []
    for _ in range(draw(st.integers(1, most))):
        layers = draw(st.integers(1, 4))
        rows = [
            np.array([[draw(steps), draw(steps)] for _ in range(count)], dtype=float)
            for count in (layers, layers, layers + 1)
        ]
        rows[2] *= 1e5
        table.append(ExitCoefficients(draw(st.sampled_from([0.3, 0.5, 0.52, 0.9, 1.0])), *rows))
    return tuple(table)


@st.composite
def coded_exits(draw: st.DrawFn) -> tuple[ExitCoefficients, ...]:
    """Up to 3 exits with 0 to 4 codecs at their cuts, good ones and bad ones."""
    table = []
    for exit in draw(exits(most=3)):
        places = draw(
            st.lists(
                st.tuples(st.integers(0, exit.layers - 1), st.sampled_from(["fp16", "uint8", "uint8+zstd"])),
                max_size=4,
                unique=True,
            )
        )
        coded = tuple(
            CodedCut(
                cut,
                codec,
                draw(st.sampled_from([exit.accuracy, 0.9 * exit.accuracy, 0.5])),
                (draw(steps), draw(steps)),
                (draw(steps), draw(steps)),
                (1e5 * draw(steps), 1e5 * draw(steps)),
            )
            for cut, codec in places
        )
        table.append(replace(exit, codecs=coded))
    return tuple(table)


@st.composite
def systems(draw: st.DrawFn, most_devices: int = 4, *, codecs: bool = False) -> System:
    """Up to `most_devices` devices of different speed and link."""
    devices = draw(st.integers(1, most_devices))
    return System(
        draw(coded_exits() if codecs else exits()),
        tuple(draw(st.sampled_from([0.0, 0.5, 1.0, 2.5])) for _ in range(devices)),
        tuple(draw(st.sampled_from([5e4, 125e3, 1e6])) for _ in range(devices)),
        Gain(draw(st.sampled_from([0.0, 0.1, 1.0])), draw(st.sampled_from([0.0, 16.0]))),
        NetworkTerms(
            draw(steps),
            draw(steps),
            draw(steps),
            draw(st.integers(1, 3)),
            draw(st.sampled_from([1, 1, 2, 3])),
        ),
    )


@st.composite
def instances(draw: st.DrawFn, most_tasks: int = 8, *, codecs: bool = False) -> Instance:
    """Instances with simultaneous arrivals and zero budgets among them."""
    system = draw(systems(codecs=codecs))
    arrivals_s = sorted(draw(st.lists(steps, min_size=1, max_size=most_tasks)))
    tasks = tuple(
        Task(
            arrival_s,
            draw(st.integers(1, 4)),
            draw(st.integers(0, 60)) * 0.005,
            draw(st.integers(0, system.devices - 1)),
        )
        for arrival_s in arrivals_s
    )
    return Instance(system, tasks)


@st.composite
def crowds(draw: st.DrawFn, most_tasks: int = 9) -> tuple[Instance, list[Decision]]:
    """Tasks that come to wait at the edge, most of them for the same layers, and the decisions that bring them there.

    Devices and links take next to no time; a task more in a batch costs more or less than half of one alone.
    """
    table = []
    for _ in range(draw(st.integers(1, 2))):
        edge_s = np.array([[0.0011 * draw(st.integers(1, 9)), 0.0017 * draw(st.integers(0, 9))]] * 2)
        table.append(ExitCoefficients(0.9, np.full((2, 2), 1e-6), edge_s, np.full((3, 2), 1.0)))
    count = draw(st.integers(2, most_tasks))
    network = NetworkTerms(0.0, 0.0, 0.0003, draw(st.integers(1, 3)), draw(st.integers(1, 4)))
    system = System(tuple(table), (1.0,) * count, (1e6,) * count, Gain(), network)
    gaps_s = draw(st.lists(st.integers(0, 6), min_size=count, max_size=count))
    tasks = tuple(
        Task(
            0.001 * sum(gaps_s[:device]), draw(st.integers(1, 4)), 0.0013 * draw(st.integers(1, 160)), device
        )
        for device in range(count)
    )
    # Mostly the first exit and cut, so that tasks meet.
    choice = st.tuples(st.sampled_from([1, 1, 1, len(table)]), st.sampled_from([0, 0, 0, 1]))
    return Instance(system, tasks), [Decision(*draw(choice)) for _ in range(count)]
