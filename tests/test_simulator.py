"""Both timing models against programs that share none of their code."""

from __future__ import annotations

import heapq
import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp.equations import TIME_TOLERANCE_S
from offramp.instance import Instance
from offramp.observation import TIMINGS, Observation, Timing
from offramp.policies import POLICIES
from offramp.schedule import Schedule
from offramp.simulator import simulate, simulate_named
from offramp.task import DROP, Decision
from strategies import instances

NAMES = sorted(set(POLICIES) & {"random", "greedy", "myopic", "device-only", "edge-only"})


def run(instance: Instance, name: str, timing: Timing) -> Schedule:
    return simulate_named(instance, name, timing, np.random.default_rng(0))


@given(instances(), st.sampled_from(NAMES))
def test_a_paper_schedule_recomputes_from_the_file_alone(instance: Instance, name: str) -> None:
    file = json.loads(instance.to_json())
    schedule = json.loads(run(instance, name, "paper").to_json())
    devices = file["devices"]
    slowdown = file.get("device_slowdown", [1.0] * devices)
    link = file.get("device_bandwidth_bytes_per_s", [file["bandwidth_bytes_per_s"]] * devices)
    least = min(exit["accuracy"] for exit in file["exits"])
    sent = dict.fromkeys(range(devices), 0.0)
    finished = total = 0.0
    for task, row in zip(file["tasks"], schedule["tasks"], strict=True):
        if row["exit"] == 0:
            assert row["cut"] == 0
            assert row["gain"] == 0
            assert not row["on_time"]
            assert row["finish_s"] is None
            continue
        exit, cut, size, device = file["exits"][row["exit"] - 1], row["cut"], task["size"], task["device"]
        start = max(task["arrival_s"], sent[device])
        head = sum(slope * size + base for slope, base in exit["device_s"][:cut]) * slowdown[device]
        slope, base = exit["output_bytes"][cut]
        upload = (slope * size + base) / link[device]
        tail = sum(slope * size + base for slope, base in exit["edge_s"][cut:])
        edge = max(start + head + upload, finished)
        finished, sent[device] = edge + tail, start + head
        assert [
            row[key] for key in ("device_start_s", "send_s", "edge_start_s", "finish_s")
        ] == pytest.approx([start, start + head, edge, finished], abs=1e-9)
        satisfaction = 1 / (1 + np.exp(-file["gain"]["accuracy_slope"] * (exit["accuracy"] - least)))
        late = finished > task["arrival_s"] + task["budget_s"] + TIME_TOLERANCE_S
        assert row["on_time"] == (not late)
        assert row["gain"] == pytest.approx(
            0 if late else 1 + file["gain"]["accuracy_weight"] * satisfaction, abs=1e-9
        )
        total += row["gain"]
    assert schedule["gain"] == pytest.approx(total)


def network_by_events(instance: Instance, decisions: list[Decision]) -> list[float | None]:
    """Finish instants under `network` from a plain event calendar; None where there is none."""
    system, network = instance.system, instance.system.network
    finish: list[float | None] = [None] * len(instance.tasks)
    calendar: list[tuple[float, int, int, str, int]] = []
    ticket = itertools.count()
    # At one instant the edge first frees a worker, then takes work in the order in which it was decided.
    rank = {"edge-done": 0, "arrive": 1, "announce": 2, "uploaded": 3, "head-done": 4}

    def at(instant_s: float, kind: str, number: int) -> None:
        order = number if kind == "arrive" else next(ticket)
        heapq.heappush(calendar, (instant_s, rank[kind], order, kind, number))

    heads: list[list[int]] = [[] for _ in range(system.devices)]
    uploads: list[list[int]] = [[] for _ in range(system.devices)]
    computing = [False] * system.devices
    sending = [False] * system.devices
    waiting: list[int] = []
    idle = network.edge_workers

    def row(number: int) -> tuple[float, float, float, bool]:
        task, decision = instance.tasks[number], decisions[number]
        options = system.options(task.device, task.size)
        index = options.index(decision.exit, decision.cut)
        return (
            options.head_s[index],
            options.upload_s[index],
            options.tail_s[index],
            bool(options.local[index]),
        )

    def start_head(device: int, now_s: float) -> None:
        while heads[device] and not computing[device]:
            number = heads[device].pop(0)
            if now_s > instance.tasks[number].deadline_s + TIME_TOLERANCE_S:
                continue
            computing[device] = True
            at(now_s + row(number)[0], "head-done", number)

    def start_upload(device: int, now_s: float) -> None:
        while uploads[device] and not sending[device]:
            number = uploads[device].pop(0)
            there_s = now_s + row(number)[1] + network.link_delay_s
            if there_s > instance.tasks[number].deadline_s + TIME_TOLERANCE_S:
                continue
            sending[device] = True
            at(now_s + row(number)[1], "uploaded", number)

    def start_edge(now_s: float) -> None:
        nonlocal idle
        while waiting and idle:
            number = waiting.pop(0)
            if now_s > instance.tasks[number].deadline_s + TIME_TOLERANCE_S:
                continue
            idle -= 1
            at(now_s + row(number)[2], "edge-done", number)

    for number, (task, decision) in enumerate(zip(instance.tasks, decisions, strict=True)):
        if decision.exit:
            at(task.arrival_s + network.decision_s, "announce", number)
    while calendar:
        now_s, _, _, kind, number = heapq.heappop(calendar)
        device = instance.tasks[number].device
        if kind == "announce":
            heads[device].append(number)
            start_head(device, now_s)
        elif kind == "head-done":
            computing[device] = False
            if row(number)[3]:
                finish[number] = now_s
            else:
                uploads[device].append(number)
                start_upload(device, now_s)
            start_head(device, now_s)
        elif kind == "uploaded":
            sending[device] = False
            at(now_s + network.link_delay_s, "arrive", number)
            start_upload(device, now_s)
        elif kind == "arrive":
            waiting.append(number)
            start_edge(now_s)
        elif kind == "edge-done":
            idle += 1
            finish[number] = now_s + network.answer_s
            start_edge(now_s)
    return finish


class Replay:
    """Gives decisions that were made before."""

    def __init__(self, decisions: list[Decision]) -> None:
        self._left = iter(decisions)

    @classmethod
    def create(cls, context: object) -> Replay:
        raise AssertionError(context)

    def decide(self, observation: Observation) -> Decision:
        return next(self._left)


def generic(instance: Instance) -> Instance:
    """The instance with arrivals moved apart by odd fractions, so that no two events fall on one instant."""
    from dataclasses import replace

    tasks = tuple(
        replace(task, arrival_s=task.arrival_s + number * 0.000713)
        for number, task in enumerate(instance.tasks)
    )
    return Instance(instance.system, tasks)


@given(instances(), st.data())
def test_network_timing_agrees_with_an_event_calendar(drawn: Instance, data: st.DataObject) -> None:
    instance = generic(drawn)
    decisions = []
    for task in instance.tasks:
        options = instance.system.options(task.device, task.size)
        row = data.draw(st.integers(-1, len(options) - 1))
        decisions.append(DROP if row < 0 else Decision(int(options.exit[row]), int(options.cut[row])))
    schedule = simulate(instance, Replay(decisions), "network")
    assert [row.finish_s for row in schedule.tasks] == pytest.approx(
        network_by_events(instance, decisions), abs=1e-9
    )


@given(instances(), st.sampled_from(TIMINGS))
def test_what_myopic_foresees_under_paper_timing_comes_true(instance: Instance, timing: Timing) -> None:
    schedule = run(instance, "myopic", timing)
    if timing == "paper":
        assert all(row.on_time for row in schedule.tasks if row.exit)
    assert schedule.gain == pytest.approx(sum(row.gain for row in schedule.tasks))
    assert all(row.gain == 0 for row in schedule.tasks if not row.on_time)


@pytest.mark.parametrize("timing", TIMINGS)
@pytest.mark.parametrize("name", NAMES)
def test_one_seed_gives_the_same_bytes(name: str, timing: Timing, four_exits) -> None:  # type: ignore[no-untyped-def]
    from offramp.instance import draw_instance
    from offramp.scenario import Scenario

    instance = draw_instance(Scenario(tasks=40), four_exits, np.random.default_rng(2))
    first, second = (run(instance, name, timing).to_json() for _ in range(2))
    assert first == second


def test_a_decision_that_is_no_option_is_refused(four_exits) -> None:  # type: ignore[no-untyped-def]
    from offramp.instance import draw_instance
    from offramp.scenario import Scenario

    instance = draw_instance(Scenario(tasks=1), four_exits, np.random.default_rng(2))
    with pytest.raises(ValueError, match="no option"):
        simulate(instance, Replay([Decision(9, 0)]), "paper")
