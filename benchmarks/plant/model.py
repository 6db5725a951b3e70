"""What the timing model `network` says of a device's stream on a link that changes, to hold a real run against."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from offramp.cli.arguments import exits_of
from offramp.instance import Instance
from offramp.link import PACKET_BYTES, TraceLink
from offramp.linked_state import Replay
from offramp.options import System
from offramp.simulator import simulate_named
from offramp.task import Task
from plant.books import Row
from plant.site import Load

Stretch = tuple[float, float]
"""So many seconds at so many bits per second."""


def recording(stretches: Sequence[Stretch]) -> TraceLink:
    """A link with these rates, one after the other, as a recording."""
    instants_ms, now_ms = [], 0.0
    for seconds, bits_per_s in stretches:
        until_ms = now_ms + 1000.0 * seconds
        step_ms = 8000.0 * PACKET_BYTES / bits_per_s
        instants_ms += list(np.arange(now_ms + step_ms, until_ms, step_ms))
        now_ms = until_ms
    return TraceLink(np.array([*np.round(instants_ms), round(now_ms)], dtype=np.int64))


def predicted_share(
    rows: Sequence[Row],
    load: Load,
    policy: str,
    slowdown: float,
    stretches: Sequence[Stretch],
    between_s: tuple[float, float],
    *,
    delay_s: float = 0.0,
) -> float:
    """On-time share of the tasks that arrive in an interval of the stream, by the timing model.

    `stretches` are the link's from the start of the stream on, `delay_s` its one-way delay in both directions.
    """
    scenario = load.scenario
    terms = scenario.network
    network = dataclasses.replace(
        terms,
        decision_s=terms.decision_s + 2 * delay_s,
        link_delay_s=delay_s,
        answer_s=terms.answer_s + delay_s,
    )
    declared = scenario.bandwidth_bytes_per_s
    assert isinstance(declared, float)
    system = System(exits_of(None), (slowdown,), (declared,), scenario.gain, network)
    tasks = tuple(Task(row.arrival_s, row.size, row.budget_s, 0) for row in rows)
    instance = Instance(system, tasks, scenario)
    replay = Replay(recording(stretches))
    schedule = simulate_named(instance, policy, "network", np.random.default_rng(0), replay)
    met = [
        placed.on_time
        for placed, task in zip(schedule.tasks, tasks, strict=True)
        if between_s[0] <= task.arrival_s < between_s[1]
    ]
    return sum(met) / len(met)


def after(rows: Sequence[Row], between_s: tuple[float, float]) -> list[Row]:
    """Rows whose tasks arrive in an interval of the stream."""
    return [row for row in rows if between_s[0] <= row.arrival_s < between_s[1]]
