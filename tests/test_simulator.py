"""Both timing models against programs that share none of their code."""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.edge_queue import WORTH, Batching, EdgeJob
from offramp.equations import TIME_TOLERANCE_S
from offramp.instance import Instance, parse_instance
from offramp.observation import TIMINGS, Observation, Timing
from offramp.options import Gain, NetworkTerms, System
from offramp.policies import POLICIES
from offramp.profile import ExitCoefficients
from offramp.schedule import Schedule
from offramp.simulator import simulate, simulate_named
from offramp.task import DROP, Decision, Task
from strategies import crowds, instances

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
    ends = [0.0] * network.edge_workers

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

    def together(numbers: list[int]) -> float:
        """Seconds of a batch: the layers behind the cut once, for all inputs."""
        if len(numbers) == 1:
            return row(numbers[0])[2]
        chosen = decisions[numbers[0]]
        total = sum(instance.tasks[number].size for number in numbers)
        return sum(slope * total + base for slope, base in system.exits[chosen.exit - 1].edge_s[chosen.cut :])

    def ends_of(batch: list[int], line: list[int], busy: list[float], now_s: float) -> dict[int, float]:
        """When each task of a line has ended if a worker runs a batch now and then all others go one by one."""
        done = dict.fromkeys(batch, now_s + together(batch))
        free = sorted([done[batch[0]], *busy])
        for number in line:
            if number not in done:
                done[number] = free.pop(0) + row(number)[2]
                free = sorted([*free, done[number]])
        return done

    def met(number: int, end_s: float) -> bool:
        return end_s + network.answer_s <= instance.tasks[number].deadline_s + TIME_TOLERANCE_S

    def batch_of(line: list[int], busy: list[float], now_s: float) -> list[int]:
        batch = line[:1]
        for place, number in enumerate(line[1:], 1):
            same = decisions[number].exit == decisions[line[0]].exit
            same = same and decisions[number].cut == decisions[line[0]].cut
            if not same or not met(number, now_s + row(number)[2]):
                continue
            if len(batch) == network.max_batch:
                break
            saves_s = together(batch) + row(number)[2] - together([*batch, number])
            if saves_s < WORTH * row(number)[2]:
                break
            before, after = (ends_of(each, line, busy, now_s) for each in (batch, [*batch, number]))
            if not met(number, after[number]) or after[number] > before[number]:
                break
            if any(met(other, before[other]) and not met(other, after[other]) for other in line):
                break
            # Those that it passes by are safe, or no later for it, or could not be on time if they were next.
            next_s = now_s + together(batch)
            if any(
                not met(other, after[other])
                and after[other] > before[other]
                and met(other, next_s + row(other)[2])
                for other in line[:place]
            ):
                break
            batch.append(number)
        return batch

    def start_edge(now_s: float) -> None:
        while waiting and min(ends) <= now_s:
            if now_s > instance.tasks[waiting[0]].deadline_s + TIME_TOLERANCE_S:
                waiting.pop(0)
                continue
            ends.remove(min(ends))
            batch = batch_of(waiting, [max(end_s, now_s) for end_s in ends], now_s)
            end_s = now_s + together(batch)
            ends.append(end_s)
            for number in batch:
                waiting.remove(number)
                at(end_s, "edge-done", number)

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


@given(crowds())
@settings(max_examples=200)
def test_batches_agree_with_an_event_calendar(drawn: tuple[Instance, list[Decision]]) -> None:
    crowd, decisions = drawn
    instance = generic(crowd)
    schedule = simulate(instance, Replay(decisions), "network")
    assert [row.finish_s for row in schedule.tasks] == pytest.approx(
        network_by_events(instance, decisions), abs=1e-9
    )


@given(crowds())
def test_a_batch_of_one_is_no_batch(drawn: tuple[Instance, list[Decision]]) -> None:
    instance, decisions = drawn
    system = instance.system
    alone = replace(instance, system=replace(system, network=replace(system.network, max_batch=1)))
    for network in (alone.system.network, replace(system.network, max_batch=7)):
        apart = replace(
            alone,
            system=replace(alone.system, network=network),
            tasks=tuple(replace(task, arrival_s=10.0 * n) for n, task in enumerate(instance.tasks)),
        )
        first, second = (simulate(each, Replay(decisions), "network") for each in (apart, replace(apart)))
        assert first.to_json() == second.to_json()
    text = alone.to_json()
    assert "max_batch" not in text
    assert parse_instance(text).system.network.max_batch == 1


def waiting_job(order: int, exit: int, cut: int, deadline_s: float, size: int) -> EdgeJob:
    return EdgeJob(0.0, order, 0.002 + 0.001 * size, deadline_s, order, size, Decision(exit, cut))


def met_one_by_one(first: list[EdgeJob], takes_s: float, line: list[EdgeJob], busy: list[float]) -> set[int]:
    """Which of a line are on time if a worker runs `first` now and the workers then take all the rest in turn."""
    met = {job.order for job in first if takes_s <= job.deadline_s}
    free = [takes_s, *busy]
    for job in line:
        worker = free.index(min(free))
        if job not in first:
            free[worker] += job.tail_s
            if free[worker] <= job.deadline_s:
                met.add(job.order)
    return met


@given(
    st.lists(
        st.tuples(
            st.integers(1, 2), st.just(0), st.integers(1, 90).map(lambda n: 0.00107 * n), st.integers(1, 5)
        ),
        min_size=1,
        max_size=12,
    ),
    st.integers(1, 6),
    st.lists(st.integers(0, 30).map(lambda n: 0.00031 * n), max_size=2),
)
def test_joining_makes_no_task_late(
    drawn: list[tuple[int, int, float, int]], most: int, busy: list[float]
) -> None:
    line = [waiting_job(order, *fields) for order, fields in enumerate(drawn)]

    def duration(jobs: Sequence[EdgeJob]) -> float:
        return 0.002 + 0.001 * sum(job.size for job in jobs)

    batch, takes_s = Batching(most, 0.0, duration).begin(line, 0.0, busy)

    assert batch[0] is line[0]
    assert 1 <= len(batch) <= most
    assert {job.block for job in batch} == {line[0].block}
    assert takes_s == pytest.approx(duration(batch))
    before = met_one_by_one([line[0]], line[0].tail_s, line, busy)
    after = met_one_by_one(batch, takes_s, line, busy)
    assert before <= after
    assert {job.order for job in batch[1:]} <= after
    for joined in range(1, len(batch)):
        saves_s = duration(batch[:joined]) + batch[joined].tail_s - duration(batch[: joined + 1])
        assert saves_s >= WORTH * batch[joined].tail_s - 1e-12


@pytest.mark.parametrize(("size", "together"), [(1, 3), (8, 3), (17, 3), (19, 1), (50, 1)])
def test_what_saves_little_is_not_run_together(size: int, together: int) -> None:
    """Each task has 2 ms beside its inputs: a tenth of it all up to eighteen of 1 ms."""
    line = [waiting_job(order, 1, 0, 10.0, size) for order in range(3)]
    batch, takes_s = Batching(8, 0.0, lambda jobs: 0.002 + 0.001 * sum(job.size for job in jobs)).begin(
        line, 0.0, []
    )
    assert len(batch) == together
    assert takes_s == pytest.approx(0.002 + 0.001 * size * together)


def test_batches_save_what_layers_cost_beside_their_inputs() -> None:
    """Four tasks of one input wait when a worker is free: alone each takes 3 ms, together 2 + 4 ms."""
    edge_s = np.array([[0.001, 0.002]])
    exit = ExitCoefficients(0.9, np.array([[0.0, 1.0]]), edge_s, np.array([[0.0, 1.0], [0.0, 1.0]]))
    tasks = tuple(Task(0.0001 * device, 1, 0.1, device) for device in range(5))

    def finishes(workers: int, max_batch: int, budget_s: float = 0.1) -> list[float | None]:
        network = NetworkTerms(0.0, 0.0, 0.0, workers, max_batch)
        system = System((exit,), (1.0,) * 5, (1e9,) * 5, Gain(), network)
        instance = Instance(system, tuple(replace(task, budget_s=budget_s) for task in tasks))
        rows = simulate(instance, Replay([Decision(1, 0)] * 5), "network").tasks
        return [row.finish_s and round(row.finish_s, 4) for row in rows]

    assert finishes(1, 1) == [0.003, 0.006, 0.009, 0.012, 0.015]
    assert finishes(1, 4) == [0.003, 0.009, 0.009, 0.009, 0.009]
    assert finishes(1, 2) == [0.003, 0.007, 0.007, 0.011, 0.011]
    # Two workers: the fourth task would be there later if it joined the third; the fifth is sooner with the fourth.
    assert finishes(2, 1) == [0.003, 0.0031, 0.006, 0.0061, 0.009]
    assert finishes(2, 4) == [0.003, 0.0031, 0.006, 0.0071, 0.0071]
    # With 6.2 ms the second task would be late in a batch of two; the third can only be late, and takes nobody along.
    assert finishes(1, 4, 0.0062) == [0.003, 0.006, 0.009, None, None]


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
