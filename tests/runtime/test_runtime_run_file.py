"""What a recorded run may say: every field of a task in its range and in agreement with the instance and the others."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offramp.errors import OfframpError
from offramp.instance import draw_instance
from offramp.policies.greedy import Myopic
from offramp.profile import ExitCoefficients
from offramp.runtime.demo import DemoRun
from offramp.runtime.outcomes import DEVICE_LOST, End
from offramp.runtime.rehearsal import rehearse
from offramp.runtime.replay import Recorded, load_run, replay
from offramp.runtime.summary import summarise
from offramp.scenario import Scenario

Content = dict[str, Any]


class Stalls:
    """Every seventh computation takes five times as long as it should."""

    def __init__(self) -> None:
        self._begun = 0

    def head(self, device: int, now_s: float) -> float:
        return self.tail(now_s)

    def tail(self, now_s: float) -> float:
        self._begun += 1
        return 5.0 if self._begun % 7 == 0 else 1.0


@pytest.fixture(scope="module")
def run(four_exits: tuple[ExitCoefficients, ...]) -> DemoRun:
    """A run in the world of events. Many tasks, and stalls: not all of them are answered in time."""
    instance = draw_instance(Scenario(tasks=120).changed(p=0.2, k=3.0), four_exits, np.random.default_rng(4))
    records = rehearse(instance, Myopic(), Stalls())
    summary = summarise(records, [exit.accuracy for exit in four_exits])
    return DemoRun(instance, records, summary, "myopic", 0)


@pytest.fixture
def content(run: DemoRun) -> Content:
    value: Content = json.loads(json.dumps(run.to_dict()))
    return value


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.json"


def number_of(content: Content, wanted: Callable[[Content], bool]) -> int:
    """The first task with a record like that, not the first of all."""
    return next(number for number, task in enumerate(content["tasks"]) if number and wanted(task))


def by_edge(task: Content) -> bool:
    return task["measured"]["edge_start_s"] is not None


def put(task: Content, place: str, value: object) -> None:
    *groups, field = place.split(".")
    for group in groups:
        task = task[group]
    task[field] = value


def refusal(content: Content, path: Path) -> OfframpError:
    path.write_text(json.dumps(content))
    with pytest.raises(OfframpError) as raised:
        load_run(path)
    return raised.value


@pytest.mark.parametrize(
    ("place", "value", "allowed"),
    [
        ("exit", 9, r"0\.\.4"),
        ("exit", -1, "greater"),
        ("exit", 0, ">= 1"),
        ("cut", 99, r"0\.\."),
        ("cut", -1, "greater"),
        ("codec", "zip", "one of fp32"),
        ("decided.exit", 99, r"0\.\.4"),
        ("decided.cut", 99, r"0\.\."),
        ("decided.codec", "zip", "one of fp32"),
        ("decided.more", 1, "not permitted"),
        ("measured.finish_s", math.nan, "finite"),
        ("measured.finish_s", -3, "greater"),
        ("measured.finish_s", 0, "no earlier than"),
        ("measured.finish_s", None, "a number"),
        ("measured.finish_s", 1e300, "less"),
        ("measured.device_start_s", 9e5, "no later than .*measured.send_s"),
        ("measured.device_start_s", 0, "no earlier than .*arrival_s"),
        ("measured.send_s", 0, "no earlier than"),
        ("measured.edge_start_s", 0, "no earlier than .*sent_s"),
        ("measured.edge_start_s", "soon", "number"),
        ("link_start_s", 0, "no earlier than"),
        ("link_start_s", 9e5, "no later than .*sent_s"),
        ("sent_s", math.inf, "finite"),
        ("sent_s", 0, "no earlier than"),
        ("predicted.finish_s", math.nan, "finite"),
        ("device", 7, "must be"),
        ("device", -1, "greater"),
        ("device", "a", "integer"),
        ("size", 0, "greater"),
        ("size", 7, "must be"),
        ("size", 10**6, "must be"),
        ("size", 10**9, "less"),
        ("budget_s", -1, "greater"),
        ("budget_s", 2.5, "must be"),
        ("arrival_s", -4, "must be"),
        ("arrival_s", 1e300, "must be"),
        ("arrival_s", math.nan, "finite"),
        ("sequence", -1, "greater"),
        ("sequence", 0.5, "integer"),
        ("gain", math.nan, "finite"),
        ("gain", -1, "greater"),
        ("edge_waited_s", -5, "greater"),
        ("edge_waited_s", math.nan, "finite"),
        ("edge_computed_s", -1, "greater"),
        ("edge_computed_s", math.inf, "finite"),
        ("edge_computed_s", 1e5, "at most .*finish_s"),
        ("end", "never", "on_time"),
        ("end", "expired", "null"),
        ("correct", -1, "greater"),
        ("more", 1, "not permitted"),
    ],
)
def test_a_field_out_of_range_is_named(
    content: Content, path: Path, place: str, value: object, allowed: str
) -> None:
    # Size 7 is wrong for a task of any other size.
    number = number_of(content, lambda task: by_edge(task) and task["size"] != 7)
    task = content["tasks"][number]
    put(task, place, value)
    error = refusal(content, path)
    named = "measured.finish_s" if place == "end" and value == "expired" else place
    assert error.field.startswith(f"{path}: tasks.{number}.{named}")
    if named == place:
        given = error.value
        assert given == value or (isinstance(given, float) and math.isnan(given))
    assert re.search(allowed, error.allowed)
    assert error.remedy
    assert "\n" not in str(error)


def test_a_task_has_the_device_that_the_instance_says(content: Content, path: Path) -> None:
    task = content["tasks"][3]
    own = task["device"]
    task["device"] = (own + 1) % 3
    assert refusal(content, path).allowed == f"must be {own}, as instance.tasks.3 has it"


def test_a_device_counts_no_two_tasks_alike(content: Content, path: Path) -> None:
    first, second = [n for n, task in enumerate(content["tasks"]) if task["device"] == 1][:2]
    content["tasks"][second]["sequence"] = content["tasks"][first]["sequence"]
    error = refusal(content, path)
    assert error.field.endswith(f"tasks.{second}.sequence")
    assert f"tasks.{first}" in error.allowed
    # The demo does not know how a device counted that ended without a word.
    lost = {"end": End.FAILED, "reason": DEVICE_LOST, "exit": 0, "cut": 0, "gain": 0.0, "decided": None}
    nothing = {"measured": {}, "predicted": None, "link_start_s": None, "sent_s": None}
    content["tasks"][second] |= lost | nothing
    path.write_text(json.dumps(content))
    assert load_run(path).records[second].reason == DEVICE_LOST


@pytest.mark.parametrize("place", ["sequence", "end", "measured", "predicted", "link_start_s", "device"])
def test_a_field_that_is_missing_is_named(content: Content, path: Path, place: str) -> None:
    del content["tasks"][5][place]
    error = refusal(content, path)
    assert error.field == f"{path}: tasks.5.{place}"
    assert "required" in error.allowed


@pytest.mark.parametrize("value", [-1, 0.5, math.nan, "a"])
def test_a_seed_is_a_count(content: Content, path: Path, value: object) -> None:
    assert refusal(content | {"seed": value}, path).field == f"{path}: seed"


def test_no_device_calibrates_itself_beyond_what_it_can_say(content: Content, path: Path) -> None:
    assert refusal(content | {"calibrated": [1.0, 1e300, 1.0]}, path).field == f"{path}: calibrated.1"


def test_nothing_is_done_at_a_cut_of_no_exit(content: Content, path: Path) -> None:
    number = number_of(content, lambda task: task["exit"] == 0)
    content["tasks"][number] |= {"exit": 0, "cut": 3}
    assert refusal(content, path).field.endswith(f"tasks.{number}.cut")
    content["tasks"][number] |= {"cut": 0, "codec": "zip"}
    assert refusal(content, path).field.endswith(f"tasks.{number}.codec")


@pytest.mark.parametrize(("place", "value"), [("arrival_s", math.nan), ("size", 0), ("device", 9)])
def test_the_instance_of_a_run_is_checked_as_any(
    content: Content, path: Path, place: str, value: object
) -> None:
    content["instance"]["tasks"][4][place] = value
    error = refusal(content, path)
    assert str(path) in error.field
    assert "instance" in error.field
    assert f"tasks.4.{place}" in str(error)


def test_a_good_run_is_read_as_it_was_written(run: DemoRun, content: Content, path: Path) -> None:
    path.write_text(json.dumps(content))
    found = load_run(path)
    assert found.records == run.records
    assert {End.ON_TIME, End.LATE, End.REJECTED, End.EXPIRED} <= {record.end for record in run.records}
    assert any(record.local for record in run.records)
    written = Recorded(run.instance, run.records, run.policy, run.seed, run.instance.system)
    assert replay(found) == replay(written)


def test_a_run_from_before_codecs_and_decisions_were_recorded_is_read(content: Content, path: Path) -> None:
    path.write_text(json.dumps(content))
    expected = replay(load_run(path))["on_time_share"]
    for task in content["tasks"]:
        for name in ("correct", "codec", "decided", "edge_waited_s", "edge_computed_s"):
            del task[name]
    path.write_text(
        json.dumps({name: content[name] for name in content if name not in ("calibrated", "links")})
    )
    assert replay(load_run(path))["on_time_share"] == expected


def test_clocks_round_and_timers_ring_a_little_early(content: Content, path: Path) -> None:
    number = number_of(content, by_edge)
    task = content["tasks"][number]
    task["arrival_s"] -= 1.46e-12
    task["measured"]["device_start_s"] = task["arrival_s"] - 2e-4
    task["measured"]["edge_start_s"] = task["sent_s"] - 2e-4
    path.write_text(json.dumps(content))
    assert load_run(path).records[number].measured.edge_start_s == task["measured"]["edge_start_s"]


def test_a_device_may_end_a_task_alone_that_it_has_uploaded(content: Content, path: Path) -> None:
    """It computes the rest then, and is done with the task's layers after the upload; it departs from the decision."""
    number = number_of(content, by_edge)
    task, last = content["tasks"][number], {"exit": 1, "cut": 4}
    task["measured"] |= {"send_s": task["measured"]["finish_s"], "edge_start_s": None}
    task |= last | {"edge_waited_s": None, "edge_computed_s": None}
    assert "send_s" in refusal(content, path).field
    task["local"] = True
    path.write_text(json.dumps(content))
    record = load_run(path).records[number]
    assert (record.exit, record.cut) == (1, 4)
    task["sent_s"] = task["measured"]["finish_s"] + 1
    assert refusal(content, path).field.endswith("sent_s")


def test_on_the_command_line_it_is_one_line_and_status_2(content: Content, path: Path) -> None:
    content["tasks"][2]["gain"] = math.nan
    path.write_text(json.dumps(content))
    command = [sys.executable, "-m", "offramp", "replay", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"offramp: {path}: tasks.2.gain = nan: ")
    assert len(result.stderr.splitlines()) == 1
