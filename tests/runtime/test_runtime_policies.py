"""Policies on a real edge with real devices: knowing what is coming pays there, too, and so does learning of change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from offramp.cli import app
from offramp.cli.arguments import exits_of
from offramp.experiments.cells import seeded_instance
from offramp.policies import Context, make_policy
from offramp.runtime.rehearsal import rehearse
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


TOLD = Scenario(devices=1, slot_s=0.02, device_slowdown=50.0, bandwidth_bytes_per_s=62_500.0).changed(p=0.5)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_planning_anew_pays_when_the_rate_doubles(seed: int) -> None:
    """In the runtime's own state machines: on a busy machine its stalls can be worth as much in a single run."""
    drawn = doubling(80, 240, TOLD, np.random.default_rng(seed))
    instance = seeded_instance(drawn, exits_of(None), seed=seed)
    earned = {}
    for adapt in (True, False):
        context = Context(instance.system, "network", TOLD, np.random.default_rng(0), adapt=adapt)
        records = rehearse(instance, make_policy("planner", context))
        earned[adapt] = sum(record.gain for record in records[80:])
    assert earned[True] > 1.1 * earned[False], earned


@pytest.mark.parametrize("choice", ["--adapt", "--no-adapt"])
def test_a_policy_may_be_told_another_scenario_than_the_tasks_come_from(tmp_path: Path, choice: str) -> None:
    (tmp_path / "told.json").write_text(TOLD.model_dump_json())
    (tmp_path / "drawn.json").write_text(doubling(20, 60, TOLD, np.random.default_rng(1)).model_dump_json())
    scenario = ("--scenario", str(tmp_path / "drawn.json"), "--assume", str(tmp_path / "told.json"))
    summary = demo(tmp_path, "planner", *scenario, "--tasks", "80", "--devices", "1", choice)["summary"]
    ends = ("on_time", "late", "rejected", "expired", "failed")
    assert summary["submitted"] == sum(summary[end] for end in ends) == 80
    assert summary["failed"] == 0
