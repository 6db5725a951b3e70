"""Solvers and the simulator see tables through the options alone: the same proofs hold, against the same judges."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from drawn import TICK_S, build, build_small, with_exits
from hypothesis import given, settings
from hypothesis import strategies as st
from judges import brute_force
from proofs import check_bounds, check_optimum

from offramp.instance import Instance, parse_instance
from offramp.profile import ExitCoefficients
from offramp.solvers import Exact
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

    return with_exits(instance, map(tabled, instance.system.exits))


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=150)
def test_exact_equals_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    check_optimum(with_tables(build_small(rng), rng))


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_serial_dp_and_policies_recompute_and_bounds_hold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    check_bounds(with_tables(build(rng, 20, 2, 3, 3, 15), rng))


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
