"""A recorded run that went exactly as the timing model says is found to have done so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from offramp.errors import OfframpError
from offramp.instance import draw_instance
from offramp.link import TraceLink
from offramp.linked_state import Replay
from offramp.policies.chance import Random
from offramp.policies.greedy import EdgeOnly, Myopic
from offramp.profile import ExitCoefficients
from offramp.runtime.course import Followed, Resampled, course_of
from offramp.runtime.demo import DemoRun
from offramp.runtime.measured_terms import measured_terms
from offramp.runtime.rehearsal import Rehearsal, rehearse
from offramp.runtime.replay import load_run, replay
from offramp.runtime.summary import summarise
from offramp.scenario import Scenario


@pytest.fixture
def recorded(tmp_path: Path, four_exits: tuple[ExitCoefficients, ...]) -> Path:
    """A run in the world of events, where nothing takes longer than predicted."""
    instance = draw_instance(Scenario(tasks=60), four_exits, np.random.default_rng(4))
    world = Rehearsal(instance.system, Myopic())
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
    for terms in (report, report["declared"]):
        assert terms["finish_error"]["p95"] == pytest.approx(0.0, abs=1e-6)
    for row in report["tasks"]:
        for stage, measured_s in row["measured"].items():
            if measured_s is not None and row["simulated"][stage] is not None:
                assert measured_s == pytest.approx(row["simulated"][stage], abs=1e-6)


def test_a_run_over_recorded_links_is_rehearsed_over_them(
    tmp_path: Path, four_exits: tuple[ExitCoefficients, ...]
) -> None:
    """A link that pauses in every second: a rehearsal that took its mean for granted would be far off."""
    links = Replay(TraceLink(np.arange(9, 601, 3, dtype=np.int64).repeat(2)), start_s=0.25)
    links.recording.instants_ms[-1] = 1000
    mean = links.recording.bandwidth_bytes_per_s
    scenario = Scenario(tasks=60, devices=2, k=6.0, bandwidth_bytes_per_s=mean)
    instance = draw_instance(scenario, four_exits, np.random.default_rng(4))
    records = rehearse(instance, EdgeOnly(), links=links.links(instance.system))
    summary = summarise(records, [exit.accuracy for exit in four_exits])
    path = tmp_path / "run.json"
    path.write_text(json.dumps(DemoRun(instance, records, summary, "edge-only", 0, links=links).to_dict()))
    report = replay(load_run(path))
    assert report["declared"]["finish_error"]["p95"] == pytest.approx(0.0, abs=1e-6)
    assert report["same_decisions_on_time_share"] == report["on_time_share"]
    assert report["terms"]["link_delay_s"] == pytest.approx(0.0, abs=1e-6)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"links": None}))
    assert replay(load_run(path))["declared"]["finish_error"]["p95"] > 0.05


@pytest.mark.parametrize(
    "links", [{"start_s": 0, "instants_ms": [3, 2]}, {"start_s": -1, "instants_ms": [3]}, {}]
)
def test_links_that_are_no_recording_are_one_line(recorded: Path, links: dict[str, object]) -> None:
    recorded.write_text(json.dumps(json.loads(recorded.read_text()) | {"links": links}))
    with pytest.raises(OfframpError):
        load_run(recorded)


def test_a_surprise_is_seen_where_it_was(recorded: Path) -> None:
    content = json.loads(recorded.read_text())
    for task in content["tasks"]:
        for instant in ("edge_start_s", "finish_s"):
            if task["measured"][instant] is not None:
                task["measured"][instant] += 0.003
    recorded.write_text(json.dumps(content))
    report = replay(load_run(recorded))
    assert report["terms"]["link_delay_s"] == pytest.approx(0.003, abs=1e-6)
    assert report["stages"]["queue_s"]["difference_median_s"] == pytest.approx(0.0, abs=1e-6)
    stages = report["declared"]["stages"]
    assert stages["queue_s"]["difference_median_s"] == pytest.approx(0.003, abs=1e-6)
    assert stages["edge_s"]["difference_median_s"] == pytest.approx(0.0, abs=1e-6)
    assert stages["total_s"]["difference_median_s"] == pytest.approx(0.003, abs=1e-6)


class Slower:
    """Heads of the first device take longer than they should, and tails do."""

    def head(self, device: int, now_s: float) -> float:
        return 1.4 if device == 0 else 1.0

    def tail(self, now_s: float) -> float:
        return 1.25


def test_how_slow_a_run_was_is_found_from_its_records(four_exits: tuple[ExitCoefficients, ...]) -> None:
    instance = draw_instance(Scenario(tasks=120).changed(p=0.2), four_exits, np.random.default_rng(5))
    terms = measured_terms(instance, rehearse(instance, Myopic(), Slower()))
    assert terms.device_factor == pytest.approx((1.4, 1.0, 1.0), rel=1e-6)
    assert terms.edge_factor == pytest.approx(1.25, rel=0.05)
    assert terms.decision_s == pytest.approx(instance.system.network.decision_s, abs=1e-6)
    spread = Resampled(terms, np.random.default_rng(0))
    assert [spread.head(0, float(instant_s)) for instant_s in range(50)] == pytest.approx(
        [1.0] * 50, rel=1e-6
    )
    again = rehearse(terms.applied(instance), Myopic(), None, instance.system)
    slow = rehearse(instance, Myopic(), Slower())
    for one, other in zip(slow, again, strict=True):
        assert one.end is other.end
        assert one.measured.finish_s == pytest.approx(other.measured.finish_s, abs=5e-3)


@pytest.mark.parametrize("max_batch", [1, 4])
def test_what_every_call_takes_is_told_from_how_slow_a_run_was(
    four_exits: tuple[ExitCoefficients, ...], max_batch: int
) -> None:
    """The declared system knows nothing of 0.3 ms with each head and 2 ms with each tail, nor of a slower edge."""
    scenario = Scenario(tasks=200).changed(p=0.2, k=6, max_batch=max_batch)
    declared = draw_instance(scenario, four_exits, np.random.default_rng(5))
    exits = tuple(exit.with_calls((0.0, 3e-4), (0.0, 2e-3)).with_edge_factor(1.3) for exit in four_exits)
    real = replace(declared, system=replace(declared.system, exits=exits))
    rng = np.random.default_rng(1)
    records = rehearse(real, Random(rng), Wobbling(rng), declared.system)
    terms = measured_terms(declared, records)
    assert terms.device_factor == pytest.approx((1.0, 1.0, 1.0), rel=0.02)
    assert terms.device_call_s == pytest.approx(3e-4, rel=0.1)
    assert terms.edge_factor == pytest.approx(1.3, rel=0.02)
    assert terms.edge_call_s == pytest.approx(2e-3, rel=0.05)
    again = terms.applied(declared).system
    for size in (1, 10):
        found, true = again.options(0, size), real.system.options(0, size)
        np.testing.assert_allclose(found.head_s, true.head_s, rtol=0.03)
        np.testing.assert_allclose(found.tail_s, true.tail_s, rtol=0.03)


class Wobbling:
    """Computations as long as predicted in the median, some of them three times as long."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def head(self, device: int, now_s: float) -> float:
        return self.tail(now_s)

    def tail(self, now_s: float) -> float:
        return 3.0 if self._rng.random() < 0.05 else float(self._rng.uniform(0.99, 1.01))


def test_too_few_tasks_leave_the_terms_as_declared(four_exits: tuple[ExitCoefficients, ...]) -> None:
    instance = draw_instance(Scenario(tasks=3), four_exits, np.random.default_rng(5))
    terms = measured_terms(instance, rehearse(instance, Myopic()))
    assert terms.applied(instance).to_json() == instance.to_json()


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
    with pytest.raises(OfframpError, match=r"tasks\.0\.device .*required"):
        load_run(recorded)


class SlowerLater:
    """Everything takes half as long again from an instant on, and now and then a head stalls."""

    def __init__(self, from_s: float) -> None:
        self._from_s = from_s
        self._heads = 0

    def head(self, device: int, now_s: float) -> float:
        self._heads += 1
        return (1.5 if now_s >= self._from_s else 1.0) * (4.0 if self._heads % 25 == 0 else 1.0)

    def tail(self, now_s: float) -> float:
        return 1.5 if now_s >= self._from_s else 1.0


def test_a_replay_follows_a_device_that_gets_slower_but_no_single_stall(
    tmp_path: Path, four_exits: tuple[ExitCoefficients, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = draw_instance(Scenario(tasks=200).changed(p=0.2), four_exits, np.random.default_rng(6))
    records = rehearse(instance, Myopic(), SlowerLater(instance.tasks[100].arrival_s))
    terms = measured_terms(instance, records)
    assert max(max(course.ratios) for course in terms.heads) > 2.5
    assert max(max(course.running()) for course in terms.heads) < 2
    path = tmp_path / "run.json"
    summary = summarise(records, [exit.accuracy for exit in four_exits])
    path.write_text(json.dumps(DemoRun(instance, records, summary, "myopic", 0).to_dict()))
    following = replay(load_run(path))["finish_error"]
    monkeypatch.setattr("offramp.runtime.replay.Followed", lambda terms: None)
    constant = replay(load_run(path))["finish_error"]
    assert following["median"] < 0.5 * constant["median"]
    assert following["p95"] < constant["p95"]


def test_what_chance_left_is_gone_through_once_a_round(four_exits: tuple[ExitCoefficients, ...]) -> None:
    instance = draw_instance(Scenario(tasks=80).changed(p=0.2), four_exits, np.random.default_rng(6))
    rng = np.random.default_rng(2)
    terms = measured_terms(instance, rehearse(instance, Myopic(), Wobbling(rng)))
    course = terms.heads[0]
    drawn, followed = Resampled(terms, rng), Followed(terms)
    left = [drawn.head(0, 3.0) / followed.head(0, 3.0) for _ in course.ratios]
    assert sorted(left) == pytest.approx(sorted(np.array(course.ratios) / course.running()))


def test_a_course_is_in_the_order_of_time_and_one_of_nothing_says_one() -> None:
    course = course_of(np.array([3.0, 1.0, 2.0]), np.array([6.0, 2.0, 4.0]), 2.0)
    assert course.instants_s == (1.0, 2.0, 3.0)
    assert course.ratios == (1.0, 2.0, 3.0)
    nothing = course_of(np.zeros(0), np.zeros(0), None)
    assert nothing.quantile(0.5) is None
    assert len(nothing.running()) == 0
