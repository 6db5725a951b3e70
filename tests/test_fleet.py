"""Compiled streams against the plain simulator, count by count, and fleets against the sums of their edges."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.bulk import TaskStream
from offramp.equations import IntArray
from offramp.errors import OfframpError
from offramp.experiments.cells import NetworkExits
from offramp.experiments.engine import InlineEngine, LocalEngine
from offramp.experiments.fleet import Fleet, check_fleet, edge_rng, edge_scenario, run_fleet
from offramp.fleet import translate
from offramp.fleet.stream import Streamed, play_stream
from offramp.fleet.tally import LATE, ON_TIME, UNFINISHED
from offramp.instance import draw_instance, system_of
from offramp.observation import TIMINGS, Timing
from offramp.options import NetworkTerms, System
from offramp.policies import POLICIES, Context, Policy, make_policy
from offramp.scenario import Scenario
from offramp.schedule import Schedule
from offramp.simulator import simulate
from offramp.streams import Arrivals, Bernoulli, Bursty, ListedSizes, Poisson, Recorded
from offramp.task import Task
from strategies import coded_exits, steps

QUICK = ("random", "greedy", "myopic", "device-only", "edge-only", "edgent", "neurosurgeon", "ddqn")
LEARNED_OR_PLANNED = ("planner", "ddqn", "ddqn-paper")

arrivals: st.SearchStrategy[Arrivals] = st.sampled_from(
    [
        Bernoulli(probability=0.4),
        Bernoulli(probability=1.0),
        Poisson(rate_per_s=80.0),
        Poisson(rate_per_s=2000.0),
        Bursty(calm_slots=5, burst_slots=5),
        Recorded(instants_s=(0.0, 0.005, 0.005, 0.02), period_s=0.05),
    ]
)


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """Few devices of different speed and link, times that tie, budgets from none to ample."""
    devices = draw(st.integers(1, 4))
    return Scenario(
        devices=devices,
        tasks=draw(st.integers(1, 60)),
        slot_s=0.005,
        k=draw(st.sampled_from([0.5, 1.0, 4.0, 12.0])),
        arrivals=draw(arrivals),
        sizes=ListedSizes(values=(1, 2, 5), weights=(1, 2, 1)),
        device_slowdown=tuple(draw(st.sampled_from([0.5, 1.0, 2.5])) for _ in range(devices)),
        bandwidth_bytes_per_s=tuple(draw(st.sampled_from([5e4, 125e3, 1e6])) for _ in range(devices)),
        network=NetworkTerms(
            draw(steps), draw(steps), draw(steps), draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 5]))
        ),
    )


def policy_of(name: str, scenario: Scenario, exits: NetworkExits, timing: Timing, adapt: bool) -> Policy:
    rng = np.random.default_rng([7, 1])
    return make_policy(name, Context(system_of(scenario, exits), timing, scenario, rng, adapt=adapt))


def compiled(
    name: str, scenario: Scenario, exits: NetworkExits, timing: Timing, stretch: int = 16, adapt: bool = True
) -> Streamed:
    policy = policy_of(name, scenario, exits, timing, adapt)
    return play_stream(scenario, exits, policy, timing, np.random.default_rng(7), stretch)


def count_schedule(
    schedule: Schedule, tasks: Sequence[Task], system: System, sizes: Sequence[int]
) -> IntArray:
    """Count a schedule's tasks, which must be of these sizes."""
    table = system.options(0, sizes[0])
    counts = np.zeros((len(sizes), len(table) + 1, 3), np.int64)
    place = {size: index for index, size in enumerate(sizes)}
    for row, task in zip(schedule.tasks, tasks, strict=True):
        chosen = 0 if row.exit == 0 else 1 + table.index(row.exit, row.cut, row.codec)
        end = ON_TIME if row.on_time else UNFINISHED if row.finish_s is None else LATE
        counts[place[task.size], chosen, end] += 1
    return counts


def plain(
    name: str, scenario: Scenario, exits: NetworkExits, timing: Timing, adapt: bool = True
) -> tuple[Any, float]:
    """Counts and total gain of the plain simulator's schedule of the same tasks."""
    instance = draw_instance(scenario, exits, np.random.default_rng(7))
    schedule = simulate(instance, policy_of(name, scenario, exits, timing, adapt), timing)
    tally = count_schedule(schedule, instance.tasks, instance.system, scenario.sizes.values)
    return tally, schedule.gain


def agree(streamed: Streamed, counted: Any, gain: float, scenario: Scenario, exits: NetworkExits) -> None:
    np.testing.assert_array_equal(streamed.tally.counts, counted)
    assert streamed.tally.counts.sum() == scenario.tasks
    earned = streamed.tally.counts[:, 1:, ON_TIME].sum(axis=0) @ system_of(scenario, exits).options(0, 1).gain
    assert earned == pytest.approx(gain, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", QUICK)
@settings(max_examples=40)
@given(scenario=scenarios(), exits=coded_exits(), timing=st.sampled_from(TIMINGS))
def test_every_count_is_the_plain_simulators(
    scenario: Scenario, exits: NetworkExits, name: str, timing: Timing
) -> None:
    counted, gain = plain(name, scenario, exits, timing)
    agree(compiled(name, scenario, exits, timing), counted, gain, scenario, exits)


@pytest.mark.parametrize("timing", TIMINGS)
@pytest.mark.parametrize("name", LEARNED_OR_PLANNED)
def test_policies_that_plan_or_learned_decide_alike(
    name: str, timing: Timing, four_exits: NetworkExits
) -> None:
    scenario = Scenario(tasks=400, devices=4, device_slowdown=(20.0, 25.0, 50.0, 25.0)).changed(p=0.4)
    for adapt in (True, False):
        counted, gain = plain(name, scenario, four_exits, timing, adapt)
        agree(compiled(name, scenario, four_exits, timing, 64, adapt), counted, gain, scenario, four_exits)
        assert len(np.unique(np.flatnonzero(counted[:, 1:, ON_TIME].sum(axis=0)))) > 2


def test_a_planner_changes_its_plan_at_the_same_task(four_exits: NetworkExits) -> None:
    """The stream is busier than what the planner is told, so it plans anew, several times."""
    scenario = Scenario(tasks=600).changed(p=0.5)
    told = scenario.changed(p=0.05)
    system = system_of(scenario, four_exits)
    for timing in TIMINGS:
        contexts = [Context(system, timing, told), Context(system, timing, None)]
        for context in contexts:
            instance = draw_instance(scenario, four_exits, np.random.default_rng(7))
            schedule = simulate(instance, make_policy("planner", context), timing)
            counted = count_schedule(schedule, instance.tasks, system, scenario.sizes.values)
            policy = make_policy("planner", context)
            streamed = play_stream(scenario, four_exits, policy, timing, np.random.default_rng(7), 100)
            agree(streamed, counted, schedule.gain, scenario, four_exits)


@given(scenarios(), st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_stretches_of_any_length_hold_the_tasks_that_instances_are_drawn_with(
    scenario: Scenario, lengths: list[int]
) -> None:
    scenario = scenario.changed(tasks=sum(lengths))
    system = system_of(scenario, ())
    tasks = draw_instance(scenario, (), np.random.default_rng(3)).tasks
    stream = TaskStream(scenario, np.random.default_rng(3))
    parts = [stream.take(length) for length in lengths]
    assert [t.arrival_s for t in tasks] == np.concatenate([part.arrival_s for part in parts]).tolist()
    assert [t.device for t in tasks] == np.concatenate([part.device for part in parts]).tolist()
    sizes = np.array(scenario.sizes.values)[np.concatenate([part.size for part in parts])]
    assert [t.size for t in tasks] == sizes.tolist()
    assert system.devices == scenario.devices


@settings(max_examples=30)
@given(scenarios(), coded_exits(), st.sampled_from(QUICK), st.sampled_from(TIMINGS), st.integers(1, 60))
def test_the_length_of_a_stretch_changes_nothing(
    scenario: Scenario, exits: NetworkExits, name: str, timing: Timing, stretch: int
) -> None:
    one = compiled(name, scenario, exits, timing, stretch)
    other = compiled(name, scenario, exits, timing, 1 << 16)
    np.testing.assert_array_equal(one.tally.counts, other.tally.counts)


def test_jobs_find_room_however_many_wait(four_exits: NetworkExits, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work piles up at a slow edge far beyond the room that a stream begins with."""
    monkeypatch.setattr(translate, "_JOBS", 2)
    slow = tuple(replace(exit, edge_s=exit.edge_s * 50) for exit in four_exits)
    scenario = Scenario(tasks=300, k=400.0, arrivals=Poisson(rate_per_s=300.0), bandwidth_bytes_per_s=1e8)
    counted, gain = plain("edge-only", scenario, slow, "network")
    agree(compiled("edge-only", scenario, slow, "network"), counted, gain, scenario, slow)
    assert counted[:, 1:, ON_TIME].sum() > 50


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", ["greedy", "myopic"])
def test_tasks_that_wait_are_run_together_as_in_the_plain_simulator(
    name: str, workers: int, four_exits: NetworkExits
) -> None:
    """A crowd at the edge, whose layers take hardly longer for more inputs, so that running them together pays."""
    cheap = tuple(replace(exit, edge_s=exit.edge_s * [0.2, 60.0]) for exit in four_exits)
    counts = []
    for batch in (1, 4):
        scenario = Scenario(
            devices=20,
            tasks=400,
            arrivals=Poisson(rate_per_s=250.0 * workers),
            bandwidth_bytes_per_s=1e7,
            device_slowdown=200.0,
            network=NetworkTerms(edge_workers=workers, max_batch=batch),
        )
        counted, gain = plain(name, scenario, cheap, "network")
        streamed = compiled(name, scenario, cheap, "network")
        agree(streamed, counted, gain, scenario, cheap)
        counts.append(counted[:, 1:, ON_TIME].sum())
    assert counts[1] > 1.2 * counts[0]


def fleet(policy: str = "myopic", timing: Timing = "network", edges: int = 3) -> Fleet:
    slowdowns = tuple(10.0 + 5.0 * number for number in range(7))
    return Fleet(
        Scenario(devices=7, tasks=200, device_slowdown=slowdowns).changed(p=0.4), edges, policy, timing, 5
    )


def summary_of(fleet: Fleet, exits: NetworkExits, engine: Any) -> dict[str, Any]:
    *steps, (done, result) = run_fleet(fleet, exits, engine)
    assert all(step[1] is None for step in steps)
    assert done == fleet.scenario.tasks
    assert result is not None
    return result[0].to_dict()


@pytest.mark.parametrize("timing", TIMINGS)
def test_a_fleet_is_its_edges_simulated_one_by_one(timing: Timing, four_exits: NetworkExits) -> None:
    whole = fleet("random", timing)
    summary = summary_of(whole, four_exits, InlineEngine())
    devices = tasks = on_time = late = 0
    gain = 0.0
    for number in range(3):
        scenario = edge_scenario(whole, number)
        devices, tasks = devices + scenario.devices, tasks + scenario.tasks
        instance = draw_instance(scenario, four_exits, edge_rng(5, 3, number))
        context = Context(instance.system, timing, scenario, edge_rng([5, 1], 3, number))
        schedule = simulate(instance, make_policy("random", context), timing)
        on_time += sum(row.on_time for row in schedule.tasks)
        late += sum(not row.on_time and row.finish_s is not None for row in schedule.tasks)
        gain += schedule.gain
    assert (devices, tasks) == (7, 200)
    assert (summary["on_time"], summary["late"]) == (on_time, late)
    assert summary["gain"] == pytest.approx(gain, rel=1e-9)
    ends = ("on_time", "late", "rejected", "expired")
    assert sum(summary[end] for end in ends) == summary["submitted"] == 200
    assert sum(summary["exits"].values()) == sum(summary["cuts"].values()) == on_time + late


def test_processes_do_not_change_the_sums(four_exits: NetworkExits) -> None:
    assert summary_of(fleet(), four_exits, LocalEngine(2)) == summary_of(fleet(), four_exits, InlineEngine())


def test_edges_do_not_share_their_arrivals() -> None:
    streams = [TaskStream(fleet().scenario, edge_rng(5, 3, number)) for number in range(3)]
    assert len({tuple(stream.take(50).arrival_s) for stream in streams}) == 3


def test_more_edges_than_devices_are_refused() -> None:
    with pytest.raises(OfframpError, match="edges = 8: at most the number of devices, 7"):
        check_fleet(fleet(edges=8))


def test_a_policy_without_a_compiled_form_is_refused_by_name() -> None:
    refused = sorted(set(POLICIES) - set(QUICK) - set(LEARNED_OR_PLANNED))
    assert refused == ["lookahead"]
    with pytest.raises(OfframpError, match="policy = 'lookahead'"):
        check_fleet(fleet("lookahead"))


def offramp(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "offramp", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def test_the_command_counts_what_an_instance_schedules(tmp_path: Any) -> None:
    drawn = ("--tasks", 400, "--p", 0.4, "--devices", 5, "--seed", 3)
    counted = json.loads(offramp("simulate", "--policy", "random", *drawn, "--json").stdout)
    file = tmp_path / "instance.json"
    offramp("stream", "-o", file, *drawn)
    schedule = json.loads(offramp("simulate", file, "--policy", "random", "--seed", 3, "--json").stdout)
    assert counted["format"] == "offramp.fleet/1"
    assert counted["on_time"] == sum(task["on_time"] for task in schedule["tasks"])
    assert counted["rejected"] == sum(task["exit"] == 0 for task in schedule["tasks"])
    assert counted["gain"] == pytest.approx(schedule["gain"], rel=1e-9)


def test_the_command_gives_the_same_bytes_in_any_number_of_processes() -> None:
    command = ("simulate", "--policy", "myopic", "--edges", 4, "--devices", 9, "--tasks", 3000, "--json")
    one, two = (offramp(*command, "--jobs", jobs) for jobs in (1, 2))
    assert one.stdout == two.stdout
    assert json.loads(one.stdout)["submitted"] == 3000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("simulate", "--policy", "lookahead"), "policy = 'lookahead'"),
        (("simulate",), "policy = ''"),
        (("simulate", "x.json", "--policy", "myopic", "--tasks", "5"), "instance = 'x.json'"),
        (("simulate", "--policy", "myopic", "--edges", "9"), "edges = 9"),
        (("simulate", "--policy", "myopic", "--address", "a:1"), "address = 'a:1'"),
        (("simulate", "--policy", "myopic", "--engine", "spark"), "engine = 'spark'"),
    ],
)
def test_what_cannot_be_simulated_is_one_line(arguments: tuple[str, ...], said: str) -> None:
    result = offramp(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_memory_does_not_grow_with_the_tasks() -> None:
    program = (
        "import resource, sys; from offramp.cli import app\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )
    peaks = []
    for tasks in (10_000, 1_000_000):
        arguments = f"simulate --policy greedy --devices 1000 --tasks {tasks} --jobs 1 --json".split()
        command = [sys.executable, "-c", program, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
        peaks.append(int(done.stdout.splitlines()[-1]))
    # Of a task, a schedule in memory takes some 200 bytes, so a million of them 200 MB.
    assert peaks[1] - peaks[0] < 40


def test_late_tasks_are_counted_apart(four_exits: NetworkExits) -> None:
    scenario = Scenario(tasks=200).changed(p=0.5)
    counted, _ = plain("greedy", scenario, four_exits, "paper")
    assert counted[:, 1:, LATE].sum() > 0
