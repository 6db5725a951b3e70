"""The runtime's state machines do what the timing model `network` says, whatever is decided."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.instance import Instance
from offramp.observation import Observation
from offramp.options import Gain, System
from offramp.policies.greedy import Myopic
from offramp.profile import CodedCut
from offramp.runtime.edge_sessions import Limits
from offramp.runtime.outcomes import End
from offramp.runtime.rehearsal import Rehearsal
from offramp.simulator import simulate
from offramp.task import DROP, Decision
from strategies import crowds, instances


def generic(instance: Instance) -> Instance:
    """The instance with instants and durations moved apart, so that nothing ties but for rounding."""
    tasks = tuple(
        replace(task, arrival_s=task.arrival_s + number * 0.000713, budget_s=task.budget_s + 0.0003)
        for number, task in enumerate(instance.tasks)
    )
    system = instance.system
    exits = tuple(
        replace(
            exit,
            device_s=exit.device_s + 0.000113 * (1.0 + 0.137 * number),
            edge_s=1.0137 * exit.edge_s + 0.000071,
            output_bytes=0.9871 * exit.output_bytes + 3.0,
        )
        for number, exit in enumerate(system.exits)
    )
    slowdowns = tuple(slowdown or 0.25 for slowdown in system.device_slowdown)
    return Instance(
        System(exits, slowdowns, system.bandwidth_bytes_per_s, system.gain, system.network), tasks
    )


class Replay:
    """Gives decisions that were made before, in the order of the tasks' arrivals."""

    def __init__(self, decisions: list[Decision]) -> None:
        self._left = iter(decisions)

    @classmethod
    def create(cls, context: object) -> Replay:
        raise AssertionError(context)

    def decide(self, observation: Observation) -> Decision:
        return next(self._left)


def play(instance: Instance, policy: Myopic | Replay) -> Rehearsal:
    # The timing model starts whatever has not expired, also what must then be late.
    world = Rehearsal(instance.system, policy, fallback=False, limits=Limits(fit=0.0))
    for device in world.devices:
        world.connect(device)
    world.play(instance)
    world.run()
    return world


@st.composite
def coded_instances(draw: st.DrawFn) -> Instance:
    """Instances whose exits have codecs at some of their cuts, mostly such that coding is worth it."""
    instance = generic(draw(instances()))
    exits = []
    for exit in instance.system.exits:
        place = st.tuples(st.integers(0, exit.layers - 1), st.sampled_from(["uint8", "fp16+lz4"]))
        places = draw(st.lists(place, min_size=1, max_size=3, unique=True))
        exits.append(replace(exit, codecs=tuple(draw(_coded_cut(*place)) for place in places)))
    gain = Gain(accuracy_weight=1.0, accuracy_slope=16.0)
    return Instance(replace(instance.system, exits=tuple(exits), gain=gain), instance.tasks)


def _coded_cut(cut: int, codec: str) -> st.SearchStrategy[CodedCut]:
    seconds = st.tuples(st.integers(0, 4), st.integers(0, 4)).map(lambda n: (n[0] * 1.1e-3, n[1] * 1.3e-3))
    count = st.integers(0, 9).map(lambda n: (n * 101.0, 17.0))
    accuracy = st.sampled_from([0.3, 0.97, 1.0])
    return st.builds(CodedCut, st.just(cut), st.just(codec), accuracy, seconds, seconds, count)


@given(instances().map(generic) | coded_instances(), st.data())
def test_any_decisions_take_the_times_of_the_network_model(instance: Instance, data: st.DataObject) -> None:
    decisions = []
    for task in instance.tasks:
        options = instance.system.options(task.device, task.size)
        row = data.draw(st.integers(-1, len(options) - 1))
        decisions.append(DROP if row < 0 else options.decision(row))
    schedule = simulate(instance, Replay(decisions), "network")
    world = play(instance, Replay(decisions))
    for number, (task, row) in enumerate(zip(instance.tasks, schedule.tasks, strict=True)):
        record = world.devices[task.device].records[number]
        assert record.measured.finish_s == pytest.approx(row.finish_s, abs=1e-6)
        assert record.gain == pytest.approx(row.gain)
        if row.exit == 0:
            too_late = task.budget_s < instance.system.network.decision_s
            assert record.end is End.REJECTED or (too_late and record.reason == "no-verdict")
        elif row.finish_s is None:
            assert record.end is End.EXPIRED
        else:
            assert record.end is (End.ON_TIME if row.on_time else End.LATE)


@given(crowds())
@settings(max_examples=200)
def test_tasks_are_run_together_as_in_the_network_model(drawn: tuple[Instance, list[Decision]]) -> None:
    crowd, decisions = drawn
    instance = generic(crowd)
    schedule = simulate(instance, Replay(decisions), "network")
    world = play(instance, Replay(decisions))
    counts = world.edge.counts
    for number, (task, row) in enumerate(zip(instance.tasks, schedule.tasks, strict=True)):
        record = world.devices[task.device].records[number]
        assert record.measured.finish_s == pytest.approx(row.finish_s, abs=1e-6)
    ran = [row for row in schedule.tasks if row.edge_start_s is not None]
    assert counts.answered == len(ran)
    assert counts.runs == len({(row.edge_start_s, row.finish_s, row.exit, row.cut) for row in ran})
    assert world.edge.idle


@given(instances().map(generic) | coded_instances())
def test_the_edge_decides_as_the_simulator_does(instance: Instance) -> None:
    schedule = simulate(instance, Myopic(), "network")
    world = play(instance, Myopic())
    for number, (task, row) in enumerate(zip(instance.tasks, schedule.tasks, strict=True)):
        record = world.devices[task.device].records[number]
        assert (record.exit, record.cut, record.codec) == (row.exit, row.cut, row.codec)
        assert record.measured.finish_s == pytest.approx(row.finish_s, abs=1e-6)
