"""Tables in place of lines: exact where measured, never falling, and no trace of them where there are none."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp.errors import OfframpError
from offramp.host_profile import HostProfile, exit_coefficients, residual_excess
from offramp.instance import Instance, parse_instance
from offramp.options import System, cut_costs
from offramp.policies.ddqn_paper_learning import options_identity
from offramp.profile import ExitCoefficients
from offramp.tables import LayerTable, Side, is_linear, rising
from offramp.task import Task
from strategies import instances

SIDES: tuple[Side, ...] = ("device", "edge")


@st.composite
def tables(draw: st.DrawFn, side: Side = "device", layer: int = 1) -> LayerTable:
    """Two to six points, level stretches and jumps among them."""
    sizes = sorted(draw(st.sets(st.integers(1, 20), min_size=2, max_size=6)))
    rises = draw(st.lists(st.sampled_from([0.0, 1e-5, 3e-3, 0.1]), min_size=len(sizes), max_size=len(sizes)))
    return LayerTable(side, layer, tuple(zip(sizes, np.cumsum(rises).tolist(), strict=True)))


@st.composite
def tabled_exits(draw: st.DrawFn, exits: tuple[ExitCoefficients, ...]) -> tuple[ExitCoefficients, ...]:
    """The exits with tables for some of their layers."""

    def tabled(exit: ExitCoefficients) -> ExitCoefficients:
        places = st.tuples(st.sampled_from(SIDES), st.integers(1, exit.layers))
        return replace(
            exit, tables=tuple(draw(tables(*place)) for place in draw(st.lists(places, unique=True)))
        )

    return tuple(tabled(exit) for exit in exits)


@st.composite
def tabled_instances(draw: st.DrawFn) -> Instance:
    """Instances with codecs and tables."""
    instance = draw(instances(codecs=True))
    old = instance.system
    exits = draw(tabled_exits(old.exits))
    system = System(exits, old.device_slowdown, old.bandwidth_bytes_per_s, old.gain, old.network)
    return replace(instance, system=system)


@given(tables(), st.lists(st.floats(1, 60), min_size=2, max_size=20))
def test_a_table_is_exact_where_measured_and_does_not_fall(table: LayerTable, between: list[float]) -> None:
    for size, seconds in table.points:
        assert table.seconds_at(size) == seconds
    found = [
        table.seconds_at(size) for size in sorted([*between, *(float(size) for size, _ in table.points)])
    ]
    assert found == sorted(found)
    assert min(found) >= 0


@given(tables(), st.integers(1, 40))
def test_between_and_beyond_the_points(table: LayerTable, size: int) -> None:
    sizes, seconds = np.array(table.points).T
    if sizes[0] <= size <= sizes[-1]:
        assert table.seconds_at(size) == pytest.approx(np.interp(size, sizes, seconds), abs=1e-12)
    else:
        near, own = (slice(0, 2), 0) if size < sizes[0] else (slice(-2, None), -1)
        slope = float(np.diff(seconds[near])[0] / np.diff(sizes[near])[0])
        expected = max(0.0, seconds[own] + slope * (size - sizes[own]))
        assert table.seconds_at(size) == pytest.approx(expected, abs=1e-12)


@given(
    st.floats(0, 1), st.floats(0, 1), st.sets(st.integers(1, 20), min_size=2, max_size=6), st.integers(1, 40)
)
def test_a_table_on_a_line_is_the_line(slope: float, rest: float, sizes: set[int], size: int) -> None:
    points = tuple((known, slope * known + rest) for known in sorted(sizes))
    assert LayerTable("device", 1, points).seconds_at(size) == pytest.approx(slope * size + rest, abs=1e-9)


@given(tables(), st.floats(0, 5), st.floats(0, 1), st.floats(0, 1), st.integers(1, 30))
def test_factors_and_lines_on_top(
    table: LayerTable, factor: float, slope: float, rest: float, size: int
) -> None:
    assert table.scaled(factor).seconds_at(size) == pytest.approx(factor * table.seconds_at(size), abs=1e-9)
    if size >= table.points[0][0]:  # before it the time is cut off at 0, the sum's somewhere else
        expected = table.seconds_at(size) + slope * size + rest
        assert table.with_line((slope, rest)).seconds_at(size) == pytest.approx(expected, abs=1e-9)


@given(tabled_instances())
def test_a_file_read_back_writes_the_same_bytes(instance: Instance) -> None:
    text = instance.to_json()
    again = parse_instance(text)
    assert again.to_json() == text
    assert [exit.tables for exit in again.system.exits] == [exit.tables for exit in instance.system.exits]
    for exit, written in zip(instance.system.exits, json.loads(text)["exits"], strict=True):
        assert ("tables" in written) == bool(exit.tables)


@given(tabled_instances())
def test_tables_change_nothing_else_in_the_file(instance: Instance) -> None:
    """A program that ignores the key reads what it read before there were tables."""
    bare = tuple(replace(exit, tables=()) for exit in instance.system.exits)
    file = json.loads(instance.to_json())
    for exit in file["exits"]:
        exit.pop("tables", None)
    without = replace(instance, system=replace(instance.system, exits=bare))
    assert json.loads(without.to_json()) == file
    assert parse_instance(json.dumps(file)).to_json() == without.to_json()
    same = all(not exit.tables for exit in instance.system.exits)
    assert (options_identity(instance.system) == options_identity(without.system)) == same


@given(tabled_instances(), st.integers(1, 25), st.floats(0.1, 4))
def test_options_recompute_from_the_file_alone(instance: Instance, size: int, factor: float) -> None:
    """As docs/model.md tells other programs to; slowdown and the edge's factor multiply tables as they do lines."""
    file = json.loads(instance.to_json())

    def seconds(exit: dict[str, Any], side: str, layer: int) -> float:
        for table in exit.get("tables", []):
            if (table["side"], table["layer"]) == (side, layer):
                x, y = np.array(table["points"]).T
                i = int(np.clip(np.searchsorted(x, size), 1, len(x) - 1))
                slope = (y[i] - y[i - 1]) / (x[i] - x[i - 1])
                return max(0.0, float(y[i - 1] + slope * (size - x[i - 1])))
        slope, rest = exit[f"{side}_s"][layer - 1]
        return float(slope * size + rest)

    old = instance.system
    exits = tuple(exit.with_edge_factor(factor) for exit in old.exits)
    slower = replace(old, exits=exits)
    for device in range(old.devices):
        table = slower.options(device, size)
        for number, exit in enumerate(file["exits"], 1):
            layers = len(exit["device_s"])
            for cut in range(layers + 1):
                row = table.index(number, cut)
                head_s = sum(seconds(exit, "device", layer) for layer in range(1, cut + 1))
                tail_s = sum(seconds(exit, "edge", layer) for layer in range(cut + 1, layers + 1))
                assert table.head_s[row] == pytest.approx(old.device_slowdown[device] * head_s, abs=1e-9)
                assert table.tail_s[row] == pytest.approx(factor * tail_s, abs=1e-9)


def bad_table(**changes: Any) -> str:
    exit = ExitCoefficients(0.8, np.array([[1e-3, 0.0]]), np.array([[1e-3, 0.0]]), np.array([[9.0, 0]] * 2))
    file = json.loads(Instance(System((exit,), (1.0,), (1e5,)), (Task(0.0, 1, 1.0, 0),)).to_json())
    table = {"side": "edge", "layer": 1, "points": [[1, 1e-3], [4, 2e-3]]} | changes
    file["exits"][0]["tables"] = [table, table] if changes.get("points") == "twice" else [table]
    if changes.get("points") == "twice":
        table["points"] = [[1, 0.0], [2, 0.0]]
    return json.dumps(file)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"side": "link"}, r"exits\.0\.tables\.0\.side"),
        ({"layer": 0}, r"exits\.0\.tables\.0\.layer"),
        ({"layer": 2}, r"tables\.0\.layer = 2: must be in 1\.\.1"),
        ({"points": [[1, 0.1]]}, r"exits\.0\.tables\.0\.points"),
        ({"points": [[1, 0.1], [1, 0.2]]}, "at sizes 1 and 1: sizes must ascend"),
        ({"points": [[1, 0.1], [2, 0.05]]}, "at sizes 1 and 2: .* seconds must not fall"),
        ({"points": [[1, -0.1], [2, 0.05]]}, r"exits\.0\.tables\.0\.points"),
        ({"points": "twice"}, r"tables\.1: layer 1 on the edge has one already"),
    ],
)
def test_a_bad_table_in_an_instance_is_named(changes: dict[str, Any], complaint: str) -> None:
    assert parse_instance(bad_table()).system.exits[0].tables
    text = bad_table(**changes)
    with pytest.raises(OfframpError, match=complaint):
        parse_instance(text)


@given(st.lists(st.floats(1e-6, 1), min_size=2, max_size=10))
def test_medians_that_rise_are_kept_and_others_made_to(medians_s: list[float]) -> None:
    found = rising(np.array(medians_s))
    assert list(found) == sorted(found)
    assert min(medians_s) <= found[0]
    assert found[-1] <= max(medians_s)
    assert rising(np.array(sorted(medians_s))) == tuple(sorted(medians_s))
    # The least deviation of numbers that do not fall, by dynamic programming: some of the medians reach it.
    values = np.unique(medians_s)
    least = np.zeros(len(values))
    for median_s in medians_s:
        least = np.minimum.accumulate(least) + np.abs(values - median_s)
    assert float(np.abs(np.array(found) - medians_s).sum()) == pytest.approx(least.min(), abs=1e-9)


def test_one_wild_size_in_ten_is_no_reason_for_a_table() -> None:
    sizes = np.arange(1.0, 11.0)
    medians_s = 1e-3 * sizes
    for first in range(10):
        wild = medians_s.copy()
        wild[first] *= 1.5
        assert is_linear((1e-3, 0.0), sizes, wild)
        wild[(first + 4) % 10] *= 0.7
        assert not is_linear((1e-3, 0.0), sizes, wild)
    assert not is_linear((1e-3, 0.0), sizes[:2], np.array([1e-3, 3e-3]))


def profile(table_s: list[float] | None) -> HostProfile:
    layer: dict[str, Any] = {
        "name": "fc",
        "seconds": [1e-3, 0.0],
        "r2": 0.5,
        "residual_quantiles": {"p95": 0.1},
    }
    layer |= {"median_s": [1e-3, 2e-3, 5e-3], "linear": False}
    tabled = layer if table_s is None else layer | {"table_s": table_s}
    exits = [{"output": "exit1", "layers": [tabled, layer, tabled], "output_bytes": [[9.0, 0]] * 4}]
    host = {"cpu": "c", "cores": 1, "machine": "m", "system": "s", "versions": {}}
    value = {"model_sha256": "0" * 64, "host": host, "sizes": [1, 2, 5], "clock": "wall", "repeats": 1}
    return HostProfile.model_validate(value | {"call_s": [1e-4, 1e-3], "exits": exits})


def test_a_profile_without_tables_reads_and_writes_as_before() -> None:
    old = profile(None)
    assert "table_s" not in old.to_json()
    assert HostProfile.model_validate_json(old.to_json()) == old
    (exit,) = exit_coefficients(old, old, [0.8])
    assert exit.tables == ()
    assert "tables" not in exit.to_dict()


def test_a_profile_s_tables_become_the_plans() -> None:
    own = profile([1e-3, 2e-3, 8e-3])
    assert HostProfile.model_validate_json(own.to_json()) == own
    (exit,) = exit_coefficients(own, profile(None), [0.8])
    assert {(table.side, table.layer) for table in exit.tables} == {("device", 1), ("device", 3)}
    (both,) = exit_coefficients(own, own, [0.8])
    assert len(both.tables) == 4
    costs = cut_costs(both, 4)
    table_s, line_s, call_s = 6e-3, 4e-3, 1.4e-3
    assert costs.head_s == pytest.approx(np.cumsum([0, call_s + table_s, line_s, table_s]))
    assert costs.tail_s == pytest.approx(np.cumsum([0, call_s + table_s, line_s, table_s])[::-1])
    assert own.layer_s(1, 4) == pytest.approx([table_s, line_s, table_s])
    assert residual_excess(own, 0.95) == pytest.approx(0.1)


@pytest.mark.parametrize("table_s", [[1e-3], [1e-3, 2e-3, 1e-3], [-1e-3, 2e-3, 3e-3]])
def test_a_profile_with_a_table_that_is_none_is_refused(table_s: list[float]) -> None:
    with pytest.raises(ValueError, match="table"):
        profile(table_s)
