"""A recorded run that went exactly as the timing model says is found to have done so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from world import World

from offramp.errors import OfframpError
from offramp.instance import draw_instance
from offramp.policies.greedy import Myopic
from offramp.profile import ExitCoefficients
from offramp.runtime.demo import DemoRun
from offramp.runtime.replay import load_run, replay
from offramp.runtime.summary import summarise
from offramp.scenario import Scenario


@pytest.fixture
def recorded(tmp_path: Path, four_exits: tuple[ExitCoefficients, ...]) -> Path:
    """A run in the world of events, where nothing takes longer than predicted."""
    instance = draw_instance(Scenario(tasks=60), four_exits, np.random.default_rng(4))
    world = World(instance.system, Myopic())
    for device in world.devices:
        world.connect(device)
    world.play(instance)
    world.run()
    records = tuple(world.devices[task.device].records[number] for number, task in enumerate(instance.tasks))
    summary = summarise(records, [exit.accuracy for exit in four_exits])
    path = tmp_path / "run.json"
    path.write_text(json.dumps(DemoRun(instance, records, summary, "myopic", 0).to_dict()))
    return path


def test_a_run_without_surprises_is_what_was_simulated(recorded: Path) -> None:
    report = replay(load_run(recorded))
    shares = {report[f"{kind}on_time_share"] for kind in ("", "same_decisions_", "simulated_")}
    assert len(shares) == 1
    assert report["finish_error"]["p95"] == pytest.approx(0.0, abs=1e-6)
    for row in report["tasks"]:
        for stage, measured_s in row["measured"].items():
            if measured_s is not None and row["simulated"][stage] is not None:
                assert measured_s == pytest.approx(row["simulated"][stage], abs=1e-6)


def test_a_surprise_is_seen_where_it_was(recorded: Path) -> None:
    content = json.loads(recorded.read_text())
    for task in content["tasks"]:
        for instant in ("edge_start_s", "finish_s"):
            if task["measured"][instant] is not None:
                task["measured"][instant] += 0.003
    recorded.write_text(json.dumps(content))
    report = replay(load_run(recorded))
    remote = [row for row in report["tasks"] if row["measured"]["queue_s"] is not None]
    assert remote
    for row in remote:
        assert row["measured"]["queue_s"] - row["simulated"]["queue_s"] == pytest.approx(0.003, abs=1e-6)
        assert row["measured"]["edge_s"] == pytest.approx(row["simulated"]["edge_s"], abs=1e-6)
    assert report["stages"]["total_s"]["difference_median_s"] == pytest.approx(0.003, abs=1e-6)


@pytest.mark.parametrize("content", ["", "{}", '{"format": "offramp.run/2"}'])
def test_what_is_no_run_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(OfframpError, match=r"run\.json"):
        load_run(tmp_path / "run.json")
    with pytest.raises(OfframpError, match="run = "):
        load_run(tmp_path / "none")


def test_records_must_be_as_many_as_tasks(recorded: Path) -> None:
    content = json.loads(recorded.read_text())
    content["tasks"].pop()
    recorded.write_text(json.dumps(content))
    with pytest.raises(OfframpError, match="must be 60"):
        load_run(recorded)
    content["tasks"] = [{"sequence": 1}] * 60
    recorded.write_text(json.dumps(content))
    with pytest.raises(OfframpError, match="must be records"):
        load_run(recorded)
