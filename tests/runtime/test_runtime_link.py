"""The edge finds its devices' uplinks out from what they send, and the devices hear of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp.cli.arguments import exits_of
from offramp.experiments.cells import seeded_instance
from offramp.instance import Instance
from offramp.link import Link, RateLink, TraceLink
from offramp.link_estimate import FIRST_PROBES, PROBE_S, LinkEstimator
from offramp.policies.greedy import Myopic
from offramp.runtime.link_view import LinkView
from offramp.runtime.outcomes import End
from offramp.runtime.rehearsal import Rehearsal
from offramp.scenario import Scenario

DECLARED = 125_000.0


def played(
    link: Link, tasks: int = 120, declared: float = DECLARED, seed: int = 0
) -> tuple[Rehearsal, Instance]:
    """One slow device on this link, which it declares to be of 1 Mbit/s if nothing else is said."""
    scenario = Scenario(devices=1, tasks=tasks, device_slowdown=60.0, bandwidth_bytes_per_s=declared)
    instance = seeded_instance(scenario, exits_of(None), seed=seed)
    world = Rehearsal(instance.system, Myopic(), links=[link])
    world.connect(world.devices[0])
    world.play(instance)
    world.run(instance.tasks[-1].arrival_s + 10.0)
    assert len(world.devices[0].records) == tasks
    return world, instance


def on_time(world: Rehearsal, first: int) -> int:
    """Tasks on time from that one on."""
    records = world.devices[0].records
    return sum(records[number].end is End.ON_TIME for number in range(first, len(records)))


def believed(world: Rehearsal) -> float:
    return world.devices[0].core._own.bandwidth_bytes_per_s


@pytest.mark.parametrize("rate", [30_000.0, 60_000.0])
def test_a_link_that_breaks_its_promise_is_found_out(rate: float) -> None:
    found = known = 0
    for seed in range(4):
        world, _ = played(RateLink(rate), seed=seed)
        assert believed(world) == pytest.approx(rate, rel=0.15)
        found += on_time(world, 60)
        known += on_time(played(RateLink(rate), declared=rate, seed=seed)[0], 60)
    assert found >= 0.97 * known > 0, "as good as if it had been known"


def test_a_link_that_keeps_its_promise_is_believed_exactly() -> None:
    world, _ = played(RateLink(DECLARED))
    assert believed(world) == DECLARED


def test_a_recorded_link_that_is_faster_than_declared_is_found_out() -> None:
    """4 Mbit/s, declared as one: the probes and uploads show it."""
    world, _ = played(TraceLink(np.arange(3, 30_001, 3, dtype=np.int64)))
    assert believed(world) > 2 * DECLARED


def probed_by(world: Rehearsal, until_s: float) -> int:
    """Probes that the first device's link has carried by then."""
    world.run(until_s)
    return world.devices[0].core._probes._carried


@pytest.mark.parametrize("steady", [False, True])
def test_an_edge_that_is_new_to_a_link_is_shown_it_at_once(steady: bool) -> None:
    link: Link = RateLink(DECLARED) if steady else TraceLink(np.arange(1, 60_001, dtype=np.int64))
    instance = seeded_instance(Scenario(devices=1, tasks=1), exits_of(None), seed=0)
    world = Rehearsal(instance.system, Myopic(), links=[link])
    device = world.devices[0]
    device.core.expect_tasks(0.0)
    world.connect(device)
    begun = probed_by(world, 1.0)
    assert (begun <= 3) if steady else (begun >= FIRST_PROBES)
    later = probed_by(world, 4.0) - begun
    assert later <= 3.0 / PROBE_S
    world.disconnect(device)
    device.core.expect_tasks(4.0)
    world.connect(device, epoch=2)
    assert device.core._probes._carried == 0
    again = probed_by(world, 5.0)
    assert (again <= 3) if steady else (again >= FIRST_PROBES)


@given(st.lists(st.sampled_from("ba"), max_size=60))
def test_beginnings_and_arrivals_are_matched_by_their_number(order: list[str]) -> None:
    """However the two connections interleave, no upload is measured by another's beginning."""

    class Noting(LinkEstimator):
        def __init__(self) -> None:
            super().__init__(DECLARED)
            self.noted: list[tuple[float, float]] = []

        def seen(self, size_bytes: float, duration_s: float, now_s: float) -> None:
            self.noted.append((size_bytes, now_s - duration_s))

    belief = Noting()
    view, begins, arrivals = LinkView(belief), 0, 0
    for now_s, event in enumerate(order):
        if event == "b":
            view.begins(100.0 + begins, float(now_s))
            begins += 1
        else:
            view.arrives(float(now_s))
            arrivals += 1
    view.believe(float(len(order)))
    began_at = [now_s for now_s, event in enumerate(order) if event == "b"]
    for size_bytes, began_s in belief.noted:
        assert began_s == began_at[int(size_bytes) - 100]
    assert len(belief.noted) <= min(begins, arrivals)
    if order == ["b", "a"] * (len(order) // 2):
        assert len(belief.noted) == len(order) // 2
