"""The instance file: what is written is read back, and each mistake is named."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from offramp.errors import OfframpError
from offramp.instance import Instance, draw_instance, parse_instance
from offramp.profile import ExitCoefficients
from offramp.scenario import Scenario
from strategies import instances


def smallest() -> dict[str, Any]:
    return {
        "format": "offramp.instance/1",
        "devices": 2,
        "bandwidth_bytes_per_s": 125000.0,
        "gain": {"accuracy_weight": 0.1, "accuracy_slope": 16.0},
        "exits": [
            {
                "accuracy": 0.5,
                "device_s": [[0.01, 0.0]],
                "edge_s": [[0.001, 0.0]],
                "output_bytes": [[3072.0, 0.0], [40.0, 0.0]],
            }
        ],
        "tasks": [
            {"arrival_s": 0.0, "size": 5, "budget_s": 0.15, "device": 0},
            {"arrival_s": 0.1, "size": 5, "budget_s": 0.15, "device": 1},
        ],
    }


@given(instances())
def test_a_file_read_back_writes_the_same_bytes(instance: Instance) -> None:
    text = instance.to_json()
    again = parse_instance(text)
    assert again.to_json() == text
    assert again.tasks == instance.tasks
    assert again.system.device_slowdown == instance.system.device_slowdown
    assert again.system.bandwidth_bytes_per_s == instance.system.bandwidth_bytes_per_s
    assert again.system.network == instance.system.network


def test_one_seed_gives_one_instance_and_keeps_its_scenario(four_exits: tuple[ExitCoefficients, ...]) -> None:
    scenario = Scenario(devices=2, tasks=20)
    texts = {draw_instance(scenario, four_exits, np.random.default_rng(5)).to_json() for _ in range(2)}
    assert len(texts) == 1
    assert parse_instance(texts.pop()).scenario == scenario


def test_devices_may_differ() -> None:
    value = smallest()
    value["device_slowdown"] = [1.0, 2.5]
    value["device_bandwidth_bytes_per_s"] = [125000.0, 1000.0]
    system = parse_instance(json.dumps(value)).system
    fast, slow = system.options(0, 5), system.options(1, 5)
    assert fast.head_s.tolist() == pytest.approx([0.0, 0.05])
    assert slow.head_s.tolist() == pytest.approx([0.0, 0.125])
    assert fast.upload_s.tolist() == pytest.approx([15360 / 125000, 200 / 125000])
    assert slow.upload_s.tolist() == pytest.approx([15.36, 0.2])
    assert fast.tail_s.tolist() == slow.tail_s.tolist() == pytest.approx([0.005, 0.0])


def test_a_scenario_of_another_program_is_left_alone() -> None:
    value = smallest()
    value["scenario"] = {"note": "drawn by hand"}
    assert parse_instance(json.dumps(value)).scenario is None


def broken(path: str, bad: object) -> str:
    value: Any = smallest()
    *parents, last = path.split(".")
    place = value
    for part in parents:
        place = place[int(part) if part.isdigit() else part]
    place[int(last) if last.isdigit() else last] = bad
    return json.dumps(value)


@pytest.mark.parametrize(
    ("path", "bad", "named"),
    [
        ("tasks", [], "tasks"),
        ("tasks.1.arrival_s", -0.5, "arrival_s"),
        ("tasks.0.arrival_s", 0.2, "sort"),
        ("tasks.0.size", 0, "size"),
        ("tasks.0.size", 2.5, "size"),
        ("tasks.0.device", 2, "device"),
        ("tasks.0.budget_s", float("nan"), "budget_s"),
        ("devices", 0, "devices"),
        ("bandwidth_bytes_per_s", 0.0, "bandwidth_bytes_per_s"),
        ("bandwidth_bytes_per_s", float("inf"), "bandwidth_bytes_per_s"),
        ("device_slowdown", [1.0], "device_slowdown"),
        ("exits", [], "exits"),
        ("exits.0.device_s", [], "device_s"),
        ("exits.0.edge_s", [[1, 0], [1, 0]], "rows"),
        ("exits.0.accuracy", 0.0, "accuracy"),
        ("exits.0.device_s.0", [0.001, -0.02], "size 5"),
        ("exits.0.output_bytes.1", [-1.0, 0.0], "size 5"),
        ("format", "offramp.instance/2", "format"),
    ],
)
def test_a_bad_field_is_named_in_one_line(path: str, bad: object, named: str) -> None:
    with pytest.raises(OfframpError, match=named) as caught:
        parse_instance(broken(path, bad))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"format": "offramp.instance/1"}'])
def test_what_is_no_instance_is_refused(text: str) -> None:
    with pytest.raises(OfframpError):
        parse_instance(text)
