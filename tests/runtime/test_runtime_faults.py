"""Whatever happens between a device and its edge, each task ends once, and in time where the device can see to it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_runtime_model import generic

from offramp.instance import Instance, draw_instance
from offramp.options import System
from offramp.policies import choose
from offramp.policies.greedy import EdgeOnly, Myopic
from offramp.profile import ExitCoefficients
from offramp.runtime.edge_sessions import Limits
from offramp.runtime.outcomes import End, Ledger
from offramp.runtime.protocol import Refusal
from offramp.runtime.rehearsal import Device, Rehearsal
from offramp.scenario import Scenario
from strategies import instances

FAULTS = ("disconnect", "connect", "silent", "alive", "cut", "uncut", "drain")


class Faults:
    """Applies faults to a world's connections."""

    def __init__(self, world: Rehearsal) -> None:
        self.world = world
        self.cut = False
        world.cut_off = lambda now_s: self.cut

    def apply(self, kind: str, device: Device) -> None:
        now_s = self.world.now_s
        match kind:
            case "disconnect":
                self.world.disconnect(device)
            case "connect":
                if device.token is None and not self.world.edge.draining:
                    self.world.connect(device)
            case "silent":
                if device.token is not None:
                    device.core.edge_silent(now_s)
            case "alive":
                if device.token is not None:
                    device.core.edge_up(now_s)
            case "cut":
                self.cut = True
            case "uncut":
                self.cut = False
            case "drain":
                self.world.edge.drain()


def books_balance(device: Device) -> None:
    ledger = device.core.ledger
    assert ledger.submitted == ledger.ended + ledger.in_flight
    assert ledger.ended == len(device.records)
    assert ledger.counts()["submitted"] == ledger.submitted


@given(
    instances(),
    st.lists(st.tuples(st.floats(0, 0.4), st.sampled_from(FAULTS), st.integers(0, 3)), max_size=8),
    st.sampled_from([Myopic(), EdgeOnly()]),
    st.booleans(),
)
def test_every_task_ends_once_whatever_fails(
    drawn: Instance, faults: list[tuple[float, str, int]], policy: Myopic, fallback: bool
) -> None:
    instance = generic(drawn)
    world = Rehearsal(instance.system, policy, fallback=fallback)
    injected = Faults(world)
    for device in world.devices:
        world.connect(device)
    world.play(instance)
    for instant_s, kind, number in faults:
        device = world.devices[number % len(world.devices)]
        world.at(instant_s, lambda kind=kind, device=device: injected.apply(kind, device))
    for tenth in range(10):
        world.run(until_s=tenth * 0.05)
        for device in world.devices:
            books_balance(device)
    world.run()
    for number, device in enumerate(world.devices):
        books_balance(device)
        own = {n for n, task in enumerate(instance.tasks) if task.device == number}
        assert set(device.records) == own
        assert device.core.idle
        for record in device.records.values():
            assert record.gain == 0 or record.end is End.ON_TIME
            assert (record.reason == "") == record.answered
            if record.end is End.ON_TIME:
                assert record.measured.finish_s <= record.arrival_s + record.budget_s + 1e-9


def alone(instance: Instance) -> Device:
    """A device that never has an edge, after it has played an instance."""
    world = Rehearsal(instance.system, EdgeOnly())
    world.play(instance)
    world.run()
    return world.devices[0]


def test_a_device_without_its_edge_takes_the_best_exit_that_fits(
    four_exits: tuple[ExitCoefficients, ...],
) -> None:
    drawn = draw_instance(Scenario(tasks=60, devices=1), four_exits, np.random.default_rng(5))
    # Tasks so far apart that none is in another's way.
    tasks = tuple(replace(task, arrival_s=2.0 * number) for number, task in enumerate(drawn.tasks))
    records = alone(replace(drawn, tasks=tasks)).records
    for number, task in enumerate(tasks):
        options = drawn.system.options(0, task.size)
        finish_s = task.arrival_s + options.head_s
        best = choose(options, options.local & (finish_s <= task.deadline_s), finish_s)
        assert (records[number].exit, records[number].cut) == (best.exit, best.cut)
        assert records[number].end is (End.ON_TIME if best.exit else End.REJECTED)


@pytest.mark.parametrize("p", [0.05, 0.1, 0.2])
def test_a_busy_device_without_its_edge_gives_depth_up_before_tasks(
    four_exits: tuple[ExitCoefficients, ...], p: float
) -> None:
    scenario = Scenario(tasks=400, devices=1).changed(p=p, k=6.0)
    instance = draw_instance(scenario, four_exits, np.random.default_rng(2))
    records = alone(instance).records
    # What can be had at most is the quickest exit for every task, in their order.
    free_s, could = 0.0, 0
    for task in instance.tasks:
        options = instance.system.options(0, task.size)
        finish_s = max(free_s, task.arrival_s) + float(options.head_s[options.local].min())
        if finish_s <= task.deadline_s:
            free_s, could = finish_s, could + 1
    in_time = [record for record in records.values() if record.end is End.ON_TIME]
    assert len(in_time) >= 0.95 * could
    # Where there is room for depth, it is used.
    assert p > 0.1 or np.mean([record.exit for record in in_time]) > 1.5


def test_an_edge_that_hangs_costs_no_task_that_fits_locally(
    four_exits: tuple[ExitCoefficients, ...],
) -> None:
    scenario = Scenario(tasks=80, devices=2, device_slowdown=5.0).changed(p=0.02)
    instance = draw_instance(scenario, four_exits, np.random.default_rng(1))
    world = Rehearsal(instance.system, EdgeOnly())
    for device in world.devices:
        world.connect(device)
    world.play(instance)
    hang_s = instance.tasks[20].arrival_s + 1e-4
    world.cut_off = lambda now_s: now_s >= hang_s
    # The heartbeat notices half a second later; from then on nothing is left to the edge.
    for device in world.devices:
        world.at(hang_s + 0.5, lambda device=device: device.core.edge_silent(world.now_s))
    world.run()
    after = [
        world.devices[task.device].records[number]
        for number, task in enumerate(instance.tasks)
        if task.arrival_s > hang_s + 0.5 and _fits_locally(instance.system, task.size, task.budget_s)
    ]
    assert len(after) > 30
    assert sum(record.end is End.ON_TIME for record in after) >= 0.95 * len(after)


def _fits_locally(system: System, size: int, budget_s: float) -> bool:
    options = system.options(0, size)
    return bool((options.head_s[options.local] < budget_s).any())


def test_an_answer_after_the_end_is_counted_and_not_delivered_again(
    four_exits: tuple[ExitCoefficients, ...],
) -> None:
    scenario = Scenario(tasks=1, devices=1)
    instance = draw_instance(scenario, four_exits, np.random.default_rng(3))
    system = instance.system
    slow = System(
        system.exits,
        system.device_slowdown,
        system.bandwidth_bytes_per_s,
        system.gain,
        # The answer takes longer than any budget, which the edge does not know.
        system.network,
    )
    world = Rehearsal(slow, EdgeOnly())
    world.connect(world.devices[0])
    world.network = type(system.network)(answer_s=5.0)
    world.play(instance)
    world.run()
    device = world.devices[0]
    assert set(device.records) == {0}
    assert device.core.ledger.late_answers == 1


def test_a_full_edge_turns_tasks_away_and_the_device_computes_them(
    four_exits: tuple[ExitCoefficients, ...],
) -> None:
    instance = draw_instance(
        Scenario(tasks=40, devices=2).changed(p=0.05), four_exits, np.random.default_rng(0)
    )
    world = Rehearsal(instance.system, EdgeOnly(), limits=Limits(queue=1))
    for device in world.devices:
        world.connect(device)
    world.play(instance)
    world.run()
    assert world.edge.counts.turned_away[Refusal.OVERLOADED] > 0
    records = [record for device in world.devices for record in device.records.values()]
    assert any(record.local and record.end is End.ON_TIME for record in records)
    assert len(records) == 40


def test_a_task_cannot_end_twice() -> None:
    ledger = Ledger()
    ledger.accept(7)
    ledger.close(7, End.LATE)
    with pytest.raises(ValueError, match="not open"):
        ledger.close(7, End.ON_TIME)
    ledger.accept(8)
    with pytest.raises(ValueError, match="open already"):
        ledger.accept(8)
    assert ledger.counts() == {
        "submitted": 2, "on_time": 0, "late": 1, "rejected": 0, "expired": 0, "failed": 0,
    }  # fmt: skip
