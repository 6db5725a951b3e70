"""`offramp bench`: tasks through real processes beside the same parts on their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from offramp.model.bundle import load_bundle
from offramp.runtime.bound import ROUNDS, round_trip_s, spaced
from offramp.runtime.edge_main import exits_with


def bench(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "offramp", "bench", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=55, check=False)


def test_each_task_is_held_against_the_sum_of_its_parts(tmp_path: Path) -> None:
    done = bench("--rates", "20mbit", "--tasks", "5", "--json", "-o", str(tmp_path / "bench.json"))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert json.loads((tmp_path / "bench.json").read_text()) == result
    [link] = result["links"]
    assert 1 <= link["tasks"] == len(link["ratios"]) <= 5 * ROUNDS
    # The shaper lets nothing arrive sooner, so what was measured holds at least the upload.
    assert link["measured_s"] > link["link_s"] > 0
    assert link["bound_s"] > link["link_s"] + link["round_trip_s"]
    assert link["tail_s"] > link["head_s"] >= 0
    # The rest before a paced part is none of it.
    assert link["link_s"] < link["paced_bound_s"] < link["link_s"] + 10 * link["bound_s"]
    assert len(link["paced_ratios"]) == link["tasks"]


def test_a_policy_that_uploads_nothing_is_one_line() -> None:
    done = bench("--rates", "20mbit", "--tasks", "1", "--policy", "device-only")
    assert done.returncode == 2
    assert "the edge answered no task" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("rates", ["fast", "1mbit,", "0mbit"])
def test_a_rate_that_is_none_is_one_line(rates: str) -> None:
    done = bench("--rates", rates)
    assert done.returncode == 2
    assert "rate" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("bandwidth_bytes_per_s", [1e4, 1e6, 1e9])
def test_tasks_are_so_far_apart_that_one_is_done_before_the_next(bandwidth_bytes_per_s: float) -> None:
    bundle = load_bundle(None)
    scenario = spaced(bundle, "", 3, bandwidth_bytes_per_s)
    assert scenario.devices == 1
    for exit in exits_with(bundle, ""):
        crossing = float(exit.output_bytes[0, 0] * 10 + exit.output_bytes[0, 1]) / bandwidth_bytes_per_s
        assert scenario.slot_s > 1.5 * (crossing + exit.layer_s("edge", 10).sum())


def test_a_round_trip_on_loopback_takes_some_time_and_less_than_a_second() -> None:
    assert 0 < round_trip_s(20, 0.0) < 1


def test_a_rest_before_a_round_trip_does_not_count() -> None:
    assert 0 < round_trip_s(5, 0.2) < 0.1
