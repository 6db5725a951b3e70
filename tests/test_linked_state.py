"""Recorded links in the simulator: the same arithmetic as the shaper's, and `network` where links are steady."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.instance import Instance
from offramp.link import RateLink, TraceLink
from offramp.link_estimate import JOINED_S, Assumed, Belief, LinkEstimator
from offramp.linked_state import LinkedState, Replay
from offramp.observation import Observation
from offramp.policies import Context, make_policy
from offramp.policies.greedy import RISK, Myopic
from offramp.schedule import ScheduledTask
from offramp.simulator import simulate
from offramp.state import NetworkState
from offramp.task import DROP, Decision
from strategies import instances


class Noted:
    """A link that keeps what it was handed and when it was free of it."""

    def __init__(self, link: RateLink | TraceLink) -> None:
        self._link = link
        self.uploads: list[tuple[float, float, float]] = []
        self.bandwidth_bytes_per_s = link.bandwidth_bytes_per_s
        self.delay_s = link.delay_s

    def carry(self, ready_s: float, size_bytes: float) -> float:
        crossed_s = self._link.carry(ready_s, size_bytes)
        self.uploads.append((ready_s, size_bytes, crossed_s))
        return crossed_s


class Drawn:
    """Any option at all, as a seed has it."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def decide(self, observation: Observation) -> Decision:
        options = observation.options
        row = int(self._rng.integers(-1, len(options)))
        return DROP if row < 0 else Decision(int(options.exit[row]), int(options.cut[row]))


def play(instance: Instance, policy: Myopic | Drawn, state: NetworkState) -> list[ScheduledTask]:
    for task in instance.tasks:
        observation = state.observe(task)
        state.commit(observation, policy.decide(observation))
    return state.rows()


def assumed(rates: Sequence[float], delay_s: float) -> list[Belief]:
    return [Assumed(rate, delay_s) for rate in rates]


@given(instances(), st.integers(0, 2**32 - 1))
@settings(max_examples=100)
def test_known_steady_links_are_the_network_model(instance: Instance, seed: int) -> None:
    system = instance.system
    rates, delay_s = system.bandwidth_bytes_per_s, system.network.link_delay_s
    for policy in (Myopic, lambda: Drawn(seed)):
        links = [RateLink(rate, delay_s) for rate in rates]
        linked = LinkedState(system, links, assumed(rates, delay_s))
        assert play(instance, policy(), linked) == play(instance, policy(), NetworkState(system))


def some_trace(seed: int) -> TraceLink:
    """About 1 Mbit/s with pauses of up to a second, 3 s long."""
    rng = np.random.default_rng(seed)
    gaps_ms = np.where(rng.random(250) < 0.02, rng.integers(100, 1000, 250), rng.integers(0, 24, 250))
    return TraceLink(np.append(np.minimum(np.cumsum(gaps_ms), 2999), 3000).astype(np.int64))


@given(instances(), st.integers(0, 100), st.booleans())
@settings(max_examples=50)
def test_uploads_cross_when_the_shaper_says(instance: Instance, seed: int, estimate: bool) -> None:
    """Each upload is in the shaper's hands once its head is done, and reaches the edge when the shaper lets it."""
    system = instance.system
    delay_s = system.network.link_delay_s
    replay = Replay(some_trace(seed))
    links = [Noted(link) for link in replay.links(system)]
    beliefs = [
        LinkEstimator(rate, delay_s) if estimate else Assumed(rate, delay_s)
        for rate in system.bandwidth_bytes_per_s
    ]
    rows = play(instance, Drawn(seed), LinkedState(system, links, beliefs))
    shapers = replay.links(system)
    for link, shaper in zip(links, shapers, strict=True):
        for ready_s, size_bytes, crossed_s in link.uploads:
            assert shaper.carry(ready_s, size_bytes) == crossed_s
        # One at a time.
        for (_, _, crossed_s), (ready_s, _, _) in zip(link.uploads, link.uploads[1:], strict=False):
            assert ready_s >= crossed_s
    for task, row in zip(instance.tasks, rows, strict=True):
        if row.edge_start_s is None:
            continue
        options = system.options(task.device, task.size)
        size_bytes = float(system.crossing_bytes(task.size)[options.index(row.exit, row.cut)])
        assert row.send_s is not None
        carried = [
            crossed_s + delay_s
            for ready_s, size, crossed_s in links[task.device].uploads
            if size == size_bytes and ready_s >= row.send_s - 1e-12
        ]
        assert any(arrival_s <= row.edge_start_s for arrival_s in carried)


@given(instances(), st.floats(0.0, 1000.0), st.integers(0, 50))
def test_probes_tell_of_a_link_before_the_stream(instance: Instance, start_s: float, seed: int) -> None:
    """They take the recording's packets from where each device is in it, as far back as the device has joined."""
    system, recording = instance.system, some_trace(seed)
    whole_ms = int(recording.instants_ms[-1])
    links = [Noted(link) for link in Replay(recording, start_s).links(system)]
    beliefs = [LinkEstimator(rate) for rate in system.bandwidth_bytes_per_s]
    LinkedState(system, links, beliefs).observe(instance.tasks[0])
    device = instance.tasks[0].device
    (first_s, _, crossed_s), *_ = links[device].uploads
    assert -JOINED_S <= first_s < crossed_s
    assert first_s < -JOINED_S + 0.1
    place_ms = round((crossed_s + start_s) * 1000.0 + device * whole_ms / system.devices, 3) % whole_ms
    off_ms = np.abs(recording.instants_ms - place_ms).min()
    assert min(off_ms, abs(whole_ms - place_ms)) <= 0.01


def test_a_link_declared_far_too_slow_is_found_out() -> None:
    """With the declared rate nothing is ever uploaded; the estimate must come to upload."""
    from offramp.cli.arguments import exits_of
    from offramp.experiments.cells import seeded_instance
    from offramp.scenario import Scenario

    scenario = Scenario(tasks=400, devices=1, bandwidth_bytes_per_s=1000.0, device_slowdown=60.0)
    instance = seeded_instance(scenario, exits_of(None), seed=0)
    fast = TraceLink(np.arange(1, 10_001, dtype=np.int64))
    policy = make_policy("myopic", Context(instance.system, "network", instance.scenario))
    stuck = simulate(instance, policy, "network", Replay(fast, assumed=1000.0))
    assert all(row.edge_start_s is None for row in stuck.tasks)
    found = simulate(instance, policy, "network", Replay(fast))
    last = found.tasks[200:]
    assert sum(row.edge_start_s is not None for row in last) > 0.5 * len(last)
    assert found.gain > stuck.gain


@pytest.mark.parametrize("policy", ["myopic", "planner", "lookahead"])
def test_the_same_seed_gives_the_same_bytes(policy: str) -> None:
    from offramp.cli.arguments import exits_of
    from offramp.experiments.cells import Cell, run_cell
    from offramp.scenario import Scenario

    cell = Cell(Scenario(tasks=60), policy, "network", (3,), Replay(some_trace(1)))
    assert run_cell(cell, exits_of(None)) == run_cell(cell, exits_of(None))


@given(instances(), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=60)
def test_myopic_runs_no_great_risk_where_it_need_not(instance: Instance, seed: int) -> None:
    """What it takes is worth nearly the most that can be expected, and no such choice would gain more."""
    rng = np.random.default_rng(seed)
    task = instance.tasks[0]
    seen = NetworkState(instance.system).observe(task)
    seen = dataclasses.replace(
        seen, chance=np.where(seen.options.local, 1.0, rng.uniform(size=len(seen.options.gain)))
    )
    finish_s = seen.timeline().finish_s
    fits = seen.feasible(finish_s) & (seen.options.gain > 0)
    decision = Myopic.create(Context(instance.system)).decide(seen)
    if not fits.any():
        assert decision == DROP
        return
    row = seen.options.row_of(decision)
    expected = seen.options.gain * seen.chance
    near = fits & (expected >= (1.0 - RISK) * expected[fits].max())
    assert near[row]
    assert seen.options.gain[row] == seen.options.gain[near].max()


@pytest.mark.parametrize("name", ["myopic", "planner", "lookahead", "ddqn"])
def test_what_has_no_chance_is_left_to_the_device(name: str) -> None:
    """The same tasks on a fast link: with a chance of one most are uploaded, with none those that fit are local."""
    from offramp.cli.arguments import exits_of
    from offramp.experiments.cells import seeded_instance
    from offramp.scenario import Scenario

    scenario = Scenario(tasks=40, bandwidth_bytes_per_s=2e6)
    instance = seeded_instance(scenario, exits_of(None), seed=1)
    uploads = []
    for certain in (1.0, 0.0):
        policy = make_policy(
            name, Context(instance.system, "network", scenario, np.random.default_rng(0), adapt=False)
        )
        uploads.append(0)
        for task in instance.tasks:
            seen = NetworkState(instance.system).observe(task)
            local = seen.options.local
            seen = dataclasses.replace(seen, chance=np.where(local, 1.0, certain))
            np.testing.assert_array_equal(
                seen.expected_gain, np.where(local, 1.0, certain) * seen.options.gain
            )
            fits = seen.feasible(seen.timeline().finish_s) & local & (seen.options.gain > 0)
            decision = policy.decide(seen)
            assert decision.exit > 0
            uploaded = not local[seen.options.row_of(decision)]
            uploads[-1] += uploaded
            assert certain or not uploaded or not fits.any()
    assert uploads[0] > 20 > uploads[1]
