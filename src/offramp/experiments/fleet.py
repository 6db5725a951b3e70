"""Fleets: many edges, each with its devices and a stream of its own, counted."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from offramp.errors import MissingExtraError, OfframpError
from offramp.experiments.cells import NetworkExits
from offramp.experiments.engine import Engine
from offramp.fleet.stream import STRETCH, Streamed, play_stream
from offramp.fleet.tally import Summary, summed
from offramp.instance import system_of
from offramp.observation import Timing
from offramp.policies import Context, make_policy
from offramp.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Fleet:
    """What is simulated: a scenario's devices and tasks, shared out among edges, and what decides.

    Attributes:
        scenario: of the whole; its arrivals are those of each edge.
        told: what the policy is told that an edge's tasks are drawn from; None for what they are.
    """

    scenario: Scenario
    edges: int
    policy: str
    timing: Timing
    seed: int
    policy_file: Path | None = None
    adapt: bool = True
    told: Scenario | None = None


def edge_scenario(fleet: Fleet, number: int) -> Scenario:
    """What edge `number` of the fleet serves: neighbouring devices, and its share of the tasks, as even as can be."""
    whole = fleet.scenario
    first, last = _share(whole.devices, fleet.edges, number)
    tasks = _share(whole.tasks, fleet.edges, number)
    return whole.model_copy(
        update={
            "devices": last - first,
            "tasks": tasks[1] - tasks[0],
            "device_slowdown": _part(whole.device_slowdown, first, last),
            "bandwidth_bytes_per_s": _part(whole.bandwidth_bytes_per_s, first, last),
        }
    )


def _share(total: int, parts: int, number: int) -> tuple[int, int]:
    return total * number // parts, total * (number + 1) // parts


def _part(value: float | tuple[float, ...], first: int, last: int) -> float | tuple[float, ...]:
    return value[first:last] if isinstance(value, tuple) else value


def edge_rng(entropy: int | list[int], edges: int, number: int) -> np.random.Generator:
    """An edge's generator: spawned from the seed's, or that itself if there is but one edge."""
    key = () if edges == 1 else (number,)
    return np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=key))


def run_edge(number: int, fleet: Fleet, exits: NetworkExits, stretch: int = STRETCH) -> Streamed:
    """One edge of a fleet, from beginning to end."""
    scenario = edge_scenario(fleet, number)
    system = system_of(scenario, exits)
    rng = edge_rng([fleet.seed, 1], fleet.edges, number)
    told = scenario if fleet.told is None else fleet.told
    policy = make_policy(
        fleet.policy, Context(system, fleet.timing, told, rng, fleet.policy_file, fleet.adapt)
    )
    tasks_rng = edge_rng(fleet.seed, fleet.edges, number)
    return play_stream(scenario, exits, policy, fleet.timing, tasks_rng, stretch)


def check_fleet(fleet: Fleet) -> None:
    """Raises OfframpError if there are fewer devices or tasks than edges, or if the policy has no compiled form.

    MissingExtraError without numba.
    """
    if importlib.util.find_spec("numba") is None:
        raise MissingExtraError("numba", "research")
    from offramp.fleet.translate import check_policy

    check_policy(fleet.policy)
    for name, value in (("devices", fleet.scenario.devices), ("tasks", fleet.scenario.tasks)):
        if value < fleet.edges:
            raise OfframpError(
                "edges", fleet.edges, f"at most the number of {name}, {value}", f"name more {name}"
            )


def run_fleet(
    fleet: Fleet, exits: NetworkExits, engine: Engine
) -> Iterator[tuple[int, tuple[Summary, str | None] | None]]:
    """Run every edge; yields (tasks done, None) after each but the last, then (all, (their sums, a notice if any)).

    The fleet must pass `check_fleet`. The sums do not depend on the engine.
    """
    numbers = range(fleet.edges)
    results: dict[int, Streamed] = {}
    done = 0
    for number, result in engine.run(partial(run_edge, fleet=fleet, exits=exits), numbers):
        results[number] = result
        done += edge_scenario(fleet, number).tasks
        if len(results) < fleet.edges:
            yield done, None
    table = system_of(edge_scenario(fleet, 0), exits).options(0, fleet.scenario.sizes.values[0])
    notices = [results[number].notice for number in numbers]
    notice = next((one for one in notices if one is not None), None)
    yield done, (summed([results[number].tally for number in numbers], table), notice)
