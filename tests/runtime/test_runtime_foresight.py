"""Decisions that travel ahead of their tasks: when they stand, when they fall, and that they are what asking gives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp.instance import Instance, system_of
from offramp.options import System
from offramp.policies import Policy
from offramp.policies.chance import Random
from offramp.policies.greedy import EdgeOnly, Greedy, Myopic
from offramp.profile import ExitCoefficients
from offramp.runtime.edge_job import Foresee, Remake, Reply, Run, Say
from offramp.runtime.outcomes import End, TaskRecord
from offramp.runtime.protocol import (
    MAX_KINDS,
    VERSION,
    Announce,
    Begun,
    Declined,
    Hello,
    Message,
    Reconsider,
    Refusal,
    Standing,
    Upload,
    Verdict,
)
from offramp.runtime.rehearsal import MODEL, Rehearsal
from offramp.runtime.wire import wire_of
from offramp.runtime.workload import kinds_of
from offramp.scenario import Scenario
from offramp.task import Task

BUDGET_S = 0.6


def system(exits: tuple[ExitCoefficients, ...], devices: int = 1) -> System:
    return system_of(Scenario(devices=devices, device_slowdown=20.0), exits)


def played(
    there: System,
    policy: Policy,
    tasks: Sequence[Task],
    kinds: tuple[tuple[int, float], ...] = (),
    **options: bool,
) -> tuple[TaskRecord, ...]:
    rehearsal = Rehearsal(there, policy, **options)
    for device in rehearsal.devices:
        device.kinds = kinds
        rehearsal.connect(device)
    rehearsal.play(Instance(there, tuple(tasks)))
    rehearsal.run()
    return tuple(rehearsal.devices[task.device].records[n] for n, task in enumerate(tasks))


def unasked(records: Sequence[TaskRecord]) -> list[int]:
    """Tasks that began as they arrived."""
    return [record.sequence for record in records if record.measured.device_start_s == record.arrival_s]


def of_three_sizes(count: int, start_s: float = 1.0) -> list[Task]:
    """Tasks of the first device, one after the other."""
    return [Task(start_s + 2.0 * number, 1 + number % 3, BUDGET_S, 0) for number in range(count)]


@given(st.lists(st.tuples(st.integers(1, 99), st.floats(0, 1)), max_size=200))
def test_a_device_tells_its_most_frequent_kinds(drawn: list[tuple[int, float]]) -> None:
    told = kinds_of(Task(0.0, size, budget_s, 0) for size, budget_s in drawn)
    assert len(told) == min(len(set(drawn)), MAX_KINDS)
    counts = [drawn.count(kind) for kind in told]
    assert counts == sorted(counts, reverse=True)
    assert all(drawn.count(kind) <= min(counts) for kind in set(drawn).difference(told))


@pytest.mark.parametrize("policy", [Greedy(), Myopic(), EdgeOnly()])
def test_a_lone_device_need_not_ask_again_and_does_what_it_would_be_told(
    four_exits: tuple[ExitCoefficients, ...], policy: Policy
) -> None:
    records = played(system(four_exits), policy, of_three_sizes(15))
    assert all(record.end is End.ON_TIME for record in records)
    by_size = {size: [record for record in records if record.size == size] for size in (1, 2, 3)}
    first_of_their_size = {0, 1, 2}
    assert set(unasked(records)) == set(range(15)) - first_of_their_size
    for same in by_size.values():
        assert len({(record.exit, record.cut) for record in same}) == 1
        # What is predicted without a question is what came with it, but for the question.
        durations = {
            round(record.measured.finish_s - record.measured.device_start_s, 9)
            for record in same
            if record.measured.finish_s is not None and record.measured.device_start_s is not None
        }
        assert len(durations) == 1


@pytest.mark.parametrize("policy", [Greedy(), Myopic(), EdgeOnly()])
def test_a_lone_device_that_says_what_it_will_have_need_not_ask_at_all(
    four_exits: tuple[ExitCoefficients, ...], policy: Policy
) -> None:
    there, tasks = system(four_exits), of_three_sizes(9)
    told = kinds_of(tasks)
    records = played(there, policy, tasks, (*told, (1_000, BUDGET_S), (1, 0.0)))
    assert unasked(records) == list(range(9))
    asked = played(there, policy, tasks)
    assert [(record.exit, record.cut) for record in records] == [
        (record.exit, record.cut) for record in asked
    ]
    assert unasked(played(there, policy, tasks, told[:1])) == [0, 3, 4, 5, 6, 7, 8]


def test_what_is_expected_stands_again_as_soon_as_the_device_is_alone_again(
    four_exits: tuple[ExitCoefficients, ...],
) -> None:
    both = [Task(1.0 + 0.5 * number, 2, BUDGET_S, number % 2) for number in range(4)]
    after = of_three_sizes(6, 6.0)
    records = played(system(four_exits, devices=2), EdgeOnly(), [*both, *after], kinds_of(after))
    first_alone = 4  # has to ask: the other device has had a task since this one's last
    assert unasked(records) == [6, 7, 8, 9]
    assert records[first_alone].end is End.ON_TIME


def test_nothing_stands_while_another_device_is_at_work(four_exits: tuple[ExitCoefficients, ...]) -> None:
    there = system(four_exits, devices=2)
    alone = [Task(1.0 + 2.0 * number, 2, BUDGET_S, 0) for number in range(5)]
    both = [Task(11.0 + 0.5 * number, 2, BUDGET_S, number % 2) for number in range(20)]
    after = [Task(22.0 + 2.0 * number, 2, BUDGET_S, 1) for number in range(5)]
    tasks = [*alone, *both, *after]
    records = played(there, EdgeOnly(), tasks)
    first_of_both = 5  # goes by what still stands; the other device's first task ends that
    assert unasked(records) == [2, 3, 4, first_of_both, 26, 27, 28, 29]
    assert all(record.end is End.ON_TIME for record in records)


def test_a_policy_that_draws_is_asked_every_time(four_exits: tuple[ExitCoefficients, ...]) -> None:
    tasks = [Task(1.0 + 2.0 * number, 2, BUDGET_S, 0) for number in range(10)]
    records = played(system(four_exits), Random(np.random.default_rng(0)), tasks)
    assert unasked(records) == []


class Edge:
    """An edge that one device speaks to, message by message."""

    def __init__(self, exits: tuple[ExitCoefficients, ...]) -> None:
        self.core = Rehearsal(system(exits), EdgeOnly()).edge
        self.now_s = 10.0
        self.said: list[Message] = []
        opened = self.core.hello(Hello(VERSION, "d0", 1, MODEL, 20.0, 125_000.0, 0.0, (), True), self.now_s)
        assert isinstance(opened, bytes)
        self.token = opened
        self.act()

    def act(self) -> list[Message]:
        """Compute what is to be computed, and give what is said."""
        said: list[Message] = []
        while actions := self.core.take():
            for action in actions:
                match action:
                    case Remake(version, _):
                        self.core.policy_made(version, EdgeOnly())
                    case Run(batch, _):
                        logits = [("x", np.zeros((work.size, 2), np.float32)) for work in batch.works]
                        self.core.computed(batch, logits, self.now_s, 0.01)
                        self.core.took(batch, 0.01)
                    case Foresee():
                        self.core.foresee(action, self.now_s)
                    case Say(_, message) | Reply(_, message):
                        said.append(message)
        return said

    def announce(self, sequence: int) -> list[Message]:
        asks = Announce(sequence, 2, BUDGET_S, BUDGET_S, 0, 0.0, 0.0, 20.0, 0.0, 0.0)
        self.core.control(self.token, asks, self.now_s)
        return self.act()

    def upload(self, verdict: Message) -> None:
        assert isinstance(verdict, Verdict)
        wire = wire_of("x", np.zeros((2, 2), np.float32))
        place = verdict.sequence, verdict.exit, verdict.cut
        self.core.upload(self.token, Upload(*place, 2, BUDGET_S, (wire,)), self.now_s)
        self.act()

    def begin(self, sequence: int, standing: Standing, **changes: int) -> list[Message]:
        place = {"exit": standing.exit, "cut": standing.cut} | changes
        wire = wire_of("x", np.zeros((2, 2), np.float32))
        upload = Upload(sequence, place["exit"], place["cut"], 2, BUDGET_S, (wire,))
        self.core.begun(self.token, Begun(BUDGET_S, 20.0, 0.0, upload), self.now_s)
        return self.act()

    def stands(self) -> Standing:
        """Have two tasks computed; the second's decision stands."""
        first, _ = self.announce(0)
        self.upload(first)
        self.now_s += 1.0
        verdict, standing = self.announce(1)
        self.upload(verdict)
        assert isinstance(verdict, Verdict)
        assert isinstance(standing, Standing)
        assert (standing.exit, standing.cut) == (verdict.exit, verdict.cut)
        return standing


@pytest.fixture
def edge(four_exits: tuple[ExitCoefficients, ...]) -> Edge:
    return Edge(four_exits)


def refusal(said: Sequence[Message]) -> Refusal:
    (message,) = said
    assert isinstance(message, Declined)
    return message.reason


def test_a_task_that_was_begun_is_answered_once_and_renews_what_stands(edge: Edge) -> None:
    standing = edge.stands()
    answer, renewed = edge.begin(2, standing)
    assert type(answer).__name__ == "Answer"
    assert isinstance(renewed, Standing)
    assert (renewed.size, renewed.budget_s) == (standing.size, standing.budget_s)
    assert refusal(edge.begin(2, standing)) is Refusal.REPEATED
    counts = edge.core.counts
    assert (counts.unasked, counts.answered) == (1, 3)
    assert counts.announced == counts.decided + sum(counts.turned_away.values())


def test_a_begun_task_may_be_overtaken_by_the_announcement_of_the_next(edge: Edge) -> None:
    standing = edge.stands()
    edge.announce(3)
    answer, *_ = edge.begin(2, standing)
    assert type(answer).__name__ == "Answer"


def test_what_was_announced_cannot_be_begun_too(edge: Edge) -> None:
    standing = edge.stands()
    edge.announce(2)
    assert refusal(edge.begin(2, standing)) is Refusal.REPEATED


def test_nobody_chooses_for_himself(edge: Edge) -> None:
    standing = edge.stands()
    assert refusal(edge.begin(2, standing, exit=standing.exit - 1)) is Refusal.UNKNOWN_TASK


def test_a_draining_edge_begins_nothing(edge: Edge) -> None:
    standing = edge.stands()
    edge.core.drain()
    edge.act()
    assert refusal(edge.begin(2, standing)) is Refusal.DRAINING


def test_what_stands_falls_with_another_device(edge: Edge) -> None:
    edge.stands()
    assert not isinstance(
        edge.core.hello(Hello(VERSION, "d1", 1, MODEL, 20.0, 125_000.0, 0.0, (), True), edge.now_s), str
    )
    assert any(isinstance(message, Reconsider) for message in edge.act())
