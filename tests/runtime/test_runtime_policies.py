"""Policies on a real edge with real devices: knowing what is coming pays there, too, and so does learning of change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from offramp.cli import app
from offramp.scenario import Scenario
from offramp.streams import Recorded

pytest.importorskip("numba")
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def _no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OFFRAMP_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def demo(folder: Path, policy: str, *arguments: str) -> dict[str, Any]:
    """The run.json of a demo."""
    done = CliRunner().invoke(app, ["demo", "--policy", policy, "-o", str(folder), "--json", *arguments])
    assert done.exit_code == 0, done.output
    run: dict[str, Any] = json.loads((folder / "run.json").read_text())
    assert run["summary"]["notice"] is None
    return run


def test_each_earns_more_than_myopic_where_that_misses_deadlines(tmp_path: Path) -> None:
    load = ("--p", "0.5", "--tasks", "120", "--seed", "3")
    plain = demo(tmp_path, "myopic", *load)["summary"]
    assert plain["on_time"] < 0.9 * plain["submitted"]
    for policy in ("planner", "lookahead", "ddqn"):
        assert demo(tmp_path, policy, *load)["summary"]["gain"] > plain["gain"], policy


def doubling(before: int, after: int, told: Scenario, rng: np.random.Generator) -> Scenario:
    """Tasks in every second slot on average, then in every one."""
    slots = np.cumsum(np.concatenate((rng.geometric(0.5, before), np.ones(after, dtype=np.int64))))
    instants_s = tuple(float(slot) * told.slot_s for slot in slots)
    return told.model_copy(
        update={"tasks": before + after, "arrivals": Recorded(instants_s=instants_s, period_s=1e3)}
    )


def test_planning_anew_pays_when_the_rate_doubles(tmp_path: Path) -> None:
    # Twice as slow as the reference in everything, so that the machine's own stalls matter less.
    told = Scenario(devices=1, slot_s=0.02, device_slowdown=50.0, bandwidth_bytes_per_s=62_500.0).changed(
        p=0.5
    )
    drawn = doubling(80, 240, told, np.random.default_rng(1))
    (tmp_path / "told.json").write_text(told.model_dump_json())
    (tmp_path / "drawn.json").write_text(drawn.model_dump_json())
    scenario = ("--scenario", str(tmp_path / "drawn.json"), "--assume", str(tmp_path / "told.json"))
    tasks = ("--tasks", "320", "--devices", "1")
    earned = {
        choice: sum(
            task["gain"] for task in demo(tmp_path, "planner", *scenario, *tasks, choice)["tasks"][80:]
        )
        for choice in ("--adapt", "--no-adapt")
    }
    assert earned["--adapt"] > earned["--no-adapt"], earned
