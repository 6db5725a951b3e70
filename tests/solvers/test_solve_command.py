"""`offramp solve`: its JSON, and one line for every bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from coefficients import four_exits
from typer.testing import CliRunner

from offramp.cli.solve import solve
from offramp.errors import OfframpError
from offramp.instance import draw_instance
from offramp.scenario import Scenario

app = typer.Typer()
app.command()(solve)


@pytest.fixture
def value() -> dict[str, Any]:
    instance = draw_instance(Scenario().changed(tasks=12, p=0.3), four_exits(), np.random.default_rng(0))
    parsed: dict[str, Any] = json.loads(instance.to_json())
    return parsed


def write(folder: Path, value: dict[str, Any]) -> str:
    path = folder / "instance.json"
    path.write_text(json.dumps(value))
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ([], {"optimal"}),
        (["--solver", "exact", "--max-labels", "2"], {"optimal", "feasible"}),
        (["--solver", "serial-dp", "--slot-s", "0.002"], {"feasible"}),
        (["--solver", "network-bound"], {"optimal", "feasible"}),
    ],
)
def test_json_is_one_schedule(
    tmp_path: Path, value: dict[str, Any], arguments: list[str], status: set[str]
) -> None:
    result = CliRunner().invoke(app, [write(tmp_path, value), *arguments, "--json"])

    schedule = json.loads(result.stdout)
    assert schedule["format"] == "offramp.schedule/1"
    assert schedule["status"] in status
    assert len(schedule["tasks"]) == 12
    assert schedule["gain"] == pytest.approx(sum(row["gain"] for row in schedule["tasks"]))


def test_a_person_sees_the_proof(tmp_path: Path, value: dict[str, Any]) -> None:
    result = CliRunner().invoke(app, [write(tmp_path, value)])

    assert result.exit_code == 0
    assert "optimal" in result.stdout


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda v: v["tasks"].reverse(), "arrival_s"),
        (lambda v: v["tasks"][3].update(size=0), "tasks.3.size"),
        (lambda v: v["tasks"][3].update(arrival_s=-1.0), "tasks.3.arrival_s"),
        (lambda v: v["tasks"][3].update(budget_s=float("nan")), "tasks.3.budget_s"),
        (lambda v: v["tasks"].clear(), "tasks"),
        (lambda v: v["exits"][0].update(device_s=[], edge_s=[]), "exits.0"),
        (lambda v: v["exits"][1]["edge_s"].__setitem__(0, [-1.0, 2.0]), "exits.1.edge_s.0 at size"),
        (lambda v: v["tasks"][0].update(device=7), "device"),
    ],
)
def test_bad_instances_are_named(tmp_path: Path, value: dict[str, Any], change: Any, names: str) -> None:
    change(value)

    with pytest.raises(OfframpError, match=names):
        CliRunner().invoke(app, [write(tmp_path, value)], catch_exceptions=False)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--solver", "nobody"],
        ["--max-labels", "0"],
        ["--slot-s", "0.01"],
        ["--solver", "serial-dp", "--slot-s", "-1"],
        ["--solver", "serial-dp", "--max-labels", "9"],
        ["--solver", "network-bound", "--max-labels", "9"],
    ],
)
def test_bad_options_are_refused(tmp_path: Path, value: dict[str, Any], arguments: list[str]) -> None:
    with pytest.raises(OfframpError):
        CliRunner().invoke(app, [write(tmp_path, value), *arguments], catch_exceptions=False)
