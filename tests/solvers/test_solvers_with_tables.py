"""Solvers and the simulator see tables through the options alone: the same proofs hold, against the same judges."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from drawn import TICK_S, build
from hypothesis import given, settings
from hypothesis import strategies as st
from judges import brute_force, recomputed_gain

from offramp.instance import Instance, parse_instance
from offramp.options import System
from offramp.profile import ExitCoefficients
from offramp.schedule import Schedule
from offramp.simulator import simulate_named
from offramp.solvers import Exact, SerialDp
from offramp.solvers.network_bound import NetworkBound
from offramp.tables import LayerTable, Side


def with_tables(instance: Instance, rng: np.random.Generator) -> Instance:
    """The instance with tables for some layers on both sides; on ticks at every size of its tasks."""

    def table(side: Side, layer: int) -> LayerTable:
        sizes = [int(size) for size in np.flatnonzero(rng.random(4) < 0.7) + 1]
        if len(sizes) < 2:
            sizes = [1, 4]
        # Steps of a whole number of ticks for each size between, so that what is between two points is on ticks.
        rises = np.diff(sizes, prepend=sizes[0]) * rng.integers(0, 4, len(sizes))
        seconds = (rng.integers(0, 5) + np.cumsum(rises)) * TICK_S
        return LayerTable(side, layer, tuple(zip(sizes, seconds.tolist(), strict=True)))

    def tabled(exit: ExitCoefficients) -> ExitCoefficients:
        sides: tuple[Side, ...] = ("device", "edge")
        places = [(side, layer) for side in sides for layer in range(1, exit.layers + 1)]
        return replace(exit, tables=tuple(table(*place) for place in places if rng.random() < 0.6))

    old = instance.system
    exits = tuple(tabled(exit) for exit in old.exits)
    system = System(exits, old.device_slowdown, old.bandwidth_bytes_per_s, old.gain, old.network)
    return Instance(system, instance.tasks)


def decisions(schedule: Schedule) -> list[tuple[int, int]]:
    return [(row.exit, row.cut) for row in schedule.tasks]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=150)
def test_exact_equals_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    plain = build(rng, int(rng.integers(1, 6)), int(rng.integers(1, 4)), int(rng.integers(1, 3)), 2, 20)
    instance = with_tables(plain, rng)

    schedule = Exact().solve(instance)

    assert schedule.status == "optimal"
    assert schedule.gain == pytest.approx(brute_force(instance), abs=1e-9)
    assert schedule.gain == pytest.approx(recomputed_gain(instance, decisions(schedule)), abs=1e-9)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_serial_dp_and_policies_recompute_and_bounds_hold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    instance = with_tables(build(rng, 20, 2, 3, 3, 15), rng)

    serial = SerialDp(slot_s=TICK_S).solve(instance)
    optimum = Exact().solve(instance)
    bound = NetworkBound(rounds=5).solve(instance)

    assert serial.gain == pytest.approx(recomputed_gain(instance, decisions(serial)), abs=1e-9)
    assert optimum.upper_bound is not None
    assert serial.gain <= optimum.upper_bound + 1e-9
    assert bound.upper_bound is not None
    for policy in ("random", "myopic"):
        paper = simulate_named(instance, policy, "paper", np.random.default_rng(0))
        assert paper.gain == pytest.approx(recomputed_gain(instance, decisions(paper)), abs=1e-9)
        assert paper.gain <= optimum.upper_bound + 1e-9
        gain = simulate_named(instance, policy, "network", np.random.default_rng(0)).gain
        assert gain <= bound.upper_bound + 1e-9


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_a_file_with_tables_is_solved_as_what_was_written(seed: int) -> None:
    """And one whose tables lie on the lines is worth what it is without them."""
    rng = np.random.default_rng(seed)
    plain = build(rng, 5, 2, 2, 2, 20)
    instance = with_tables(plain, rng)
    assert Exact().solve(parse_instance(instance.to_json())).gain == Exact().solve(instance).gain

    file = json.loads(plain.to_json())
    for exit in file["exits"]:
        exit["tables"] = [
            {"side": side, "layer": layer, "points": [[n, slope * n + rest] for n in (1, 3)]}
            for side in ("device", "edge")
            for layer, (slope, rest) in enumerate(exit[f"{side}_s"], 1)
        ]
    on_lines = parse_instance(json.dumps(file))
    assert brute_force(on_lines) == pytest.approx(brute_force(plain), abs=1e-9)
    assert Exact().solve(on_lines).gain == pytest.approx(Exact().solve(plain).gain, abs=1e-9)
