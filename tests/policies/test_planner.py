"""The planner against judges that share none of its code: plain NumPy value iteration, alone and on joint grids."""

from __future__ import annotations

from importlib import import_module
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings

from offramp.instance import Instance, draw_instance
from offramp.observation import TIMINGS, Observation, Timing
from offramp.policies import Context, Policy, make_policy
from offramp.profile import ExitCoefficients
from offramp.scenario import Scenario
from offramp.simulator import simulate, simulate_named
from offramp.streams import ListedSizes
from offramp.task import DROP, Decision
from strategies import instances

pytest.importorskip("numba")

Array = npt.NDArray[np.float64]
SIZES = ListedSizes(values=(2, 5, 8), weights=(1.0, 2.0, 1.0))


def interpolate(table: Array, *places: Array) -> Array:
    """Multilinear interpolation of a table at fractional grid places, clipped to it."""
    corners = []
    for axis, place in enumerate(places):
        clipped = np.clip(place, 0, table.shape[axis] - 1)
        low = np.minimum(clipped.astype(int), table.shape[axis] - 2)
        corners.append(((low, 1 - (clipped - low)), (low + 1, clipped - low)))
    total: Array = np.zeros(np.broadcast(*places).shape)
    for corner in product(*corners):
        weight = np.ones_like(total)
        for _, part in corner:
            weight = weight * part
        total += weight * table[tuple(index for index, _ in corner)]
    return total


class Judge:
    """Value iteration on the full state of N devices and the edge, from Section II-B alone."""

    def __init__(self, scenario: Scenario, exits: tuple[ExitCoefficients, ...], parts: int) -> None:
        assert scenario.arrivals.kind == "bernoulli"
        self.p, self.step_s, self.parts = scenario.arrivals.probability, scenario.slot_s / parts, parts
        self.devices = scenario.devices
        self.options = {size: self.table(scenario, exits, size) for size in scenario.sizes.values}
        longest_s = max(scenario.budget_s(size) for size in scenario.sizes.values)
        points = int(np.ceil(longest_s / self.step_s - 1e-9)) + 1
        shares = scenario.sizes.probabilities()
        axes = np.meshgrid(*[np.arange(points) * self.step_s] * (self.devices + 1), indexing="ij")
        self.after = np.zeros((points,) * (self.devices + 1))
        for _ in range(300):
            best = np.zeros_like(self.after)
            for size, share in zip(scenario.sizes.values, shares, strict=True):
                first = self.best(axes, scenario.budget_s(size), size)
                for device in range(self.devices):
                    best += share / self.devices * np.swapaxes(first, 0, device)
            self.gain = float(best.flat[0])
            later = self.run_down(best - self.gain)
            change = float(np.ptp(later - self.after))
            self.after = later
            if change < 1e-4:
                break

    def table(
        self, scenario: Scenario, exits: tuple[ExitCoefficients, ...], size: int
    ) -> list[tuple[Decision, float, float, float, float]]:
        rows = []
        least = min(exit.accuracy for exit in exits)
        for number, exit in enumerate(exits, start=1):
            gain = 1 + 0.1 / (1 + np.exp(-16 * (exit.accuracy - least)))
            for cut in range(exit.layers + 1):
                head = (exit.device_s[:cut] @ [size, 1]).sum() * scenario.slowdowns[0]
                upload = exit.output_bytes[cut] @ [size, 1] / scenario.bandwidths[0]
                tail = (exit.edge_s[cut:] @ [size, 1]).sum()
                if head + upload + tail <= scenario.budget_s(size) + 1e-9:
                    rows.append((Decision(number, cut), float(head), float(upload), float(tail), float(gain)))
        return rows

    def best(self, axes: list[Array], budget_s: float, size: int) -> Array:
        """Value of a task of that size at the first device; by symmetry the others' are its transposes."""
        value = self.after
        for _, head, upload, tail, gain in self.options[size]:
            sent = axes[0] + head
            finish = np.maximum(sent + upload, axes[-1]) + tail
            places = [sent, *axes[1:-1], finish]
            earned = gain + interpolate(self.after, *(place / self.step_s for place in places))
            value = np.where((finish <= budget_s + 1e-9) & (earned > value), earned, value)
        return value

    def run_down(self, before: Array) -> Array:
        """One slot passes; then a task arrives with probability p, or another slot passes."""
        points = before.shape[0]
        index = np.maximum(np.arange(points) - self.parts, 0)
        back = np.ix_(*[index] * before.ndim)
        waited = before[back]
        later = np.zeros_like(before)
        for _ in range(2 + points // self.parts):
            later = self.p * waited + (1 - self.p) * later[back]
        return later + (1 - self.p) ** (2 + points // self.parts) * before.flat[0]

    def decide(self, observation: Observation) -> Decision:
        task, backlog = observation.task, observation.backlog
        behind = [max(0.0, free_s - task.arrival_s) for free_s in backlog.device_free_s]
        edge = max(0.0, backlog.edge_free_s[-1] - task.arrival_s)
        chosen, best = DROP, self.look_up(behind, edge)
        for decision, head, upload, tail, gain in self.options[task.size]:
            sent = behind[task.device] + head
            finish = max(sent + upload, edge) + tail
            moved = [sent if n == task.device else place for n, place in enumerate(behind)]
            if finish <= task.budget_s + 1e-9 and gain + self.look_up(moved, finish) > best + 1e-12:
                chosen, best = decision, gain + self.look_up(moved, finish)
        return chosen

    def look_up(self, behind: list[float], edge: float) -> float:
        return float(interpolate(self.after, *(np.array(place / self.step_s) for place in (*behind, edge))))


def stream(exits: tuple[ExitCoefficients, ...], scenario: Scenario, tasks: int, seed: int = 7) -> Instance:
    longer = scenario.model_copy(update={"tasks": tasks})
    return draw_instance(longer, exits, np.random.default_rng(seed))


def mean_gain(instance: Instance, policy: Policy, timing: Timing = "paper") -> float:
    return simulate(instance, policy, timing).gain / len(instance.tasks)


@pytest.mark.parametrize(("k", "p"), [(3.0, 0.1), (2.0, 0.5)])
def test_one_device_earns_what_an_independent_value_iteration_earns(
    four_exits: tuple[ExitCoefficients, ...], k: float, p: float
) -> None:
    scenario = Scenario(devices=1, sizes=SIZES).changed(k=k, p=p)
    judge = Judge(scenario, four_exits, parts=2)
    instance = stream(four_exits, scenario, 1500)
    planned = mean_gain(instance, make_policy("planner", Context(instance.system, "paper", scenario)))
    assert planned == pytest.approx(mean_gain(instance, judge), rel=0.01)
    # What the recursion promises is what the stream pays, up to the luck of 1500 tasks.
    assert planned == pytest.approx(judge.gain, rel=0.04)
    assert planned > 1.1 * mean_gain(instance, make_policy("myopic", Context(instance.system)))


@pytest.mark.parametrize(("devices", "sizes"), [(2, (3, 5)), (3, (2, 3))])
def test_tracking_one_device_does_as_well_as_the_joint_grid(
    four_exits: tuple[ExitCoefficients, ...], devices: int, sizes: tuple[int, ...]
) -> None:
    scenario = Scenario(devices=devices, sizes=ListedSizes(values=sizes)).changed(k=3, p=0.5)
    judge = Judge(scenario, four_exits, parts=1)
    instance = stream(four_exits, scenario, 800)
    planned = mean_gain(instance, make_policy("planner", Context(instance.system, "paper", scenario)))
    assert planned >= 0.985 * mean_gain(instance, judge)
    assert planned > 1.1 * mean_gain(instance, make_policy("myopic", Context(instance.system)))


@pytest.mark.parametrize("timing", TIMINGS)
@pytest.mark.parametrize(("k", "p", "devices"), [(1, 0.3, 2), (3, 0.1, 3), (3, 0.5, 20), (8, 0.3, 1)])
def test_planning_never_earns_less_than_myopic(
    four_exits: tuple[ExitCoefficients, ...], k: float, p: float, devices: int, timing: Timing
) -> None:
    scenario = Scenario(devices=devices).changed(k=k, p=p)
    drawn = [stream(four_exits, scenario, 100, seed) for seed in range(4)]
    planned, myopic = (
        sum(simulate_named(one, name, timing, np.random.default_rng(0)).gain for one in drawn)
        for name in ("planner", "myopic")
    )
    assert planned >= myopic


@pytest.mark.parametrize("timing", TIMINGS)
def test_devices_of_different_kinds_have_tables_of_their_own(
    four_exits: tuple[ExitCoefficients, ...], timing: Timing
) -> None:
    scenario = Scenario(
        devices=3,
        device_slowdown=(5.0, 10.0, 30.0),
        bandwidth_bytes_per_s=(60_000.0, 125_000.0, 500_000.0),
    ).changed(k=3, p=0.4)
    instance = stream(four_exits, scenario, 600)
    planned = mean_gain(instance, make_policy("planner", Context(instance.system, timing, scenario)), timing)
    assert planned > 1.05 * mean_gain(instance, make_policy("myopic", Context(instance.system)), timing)


@given(instances())
@settings(max_examples=10)
def test_any_system_is_decided_within_its_deadlines(instance: Instance) -> None:
    scenario = Scenario(devices=instance.system.devices, tasks=1)
    for timing in TIMINGS:
        policy = make_policy("planner", Context(instance.system, timing, scenario))
        schedule = simulate(instance, policy, timing)
        again = simulate(instance, make_policy("planner", Context(instance.system, timing, scenario)), timing)
        assert schedule.to_json() == again.to_json()
        if timing == "paper":
            assert all(row.on_time for row in schedule.tasks if row.exit)


@pytest.mark.parametrize("timing", TIMINGS)
def test_a_plan_in_the_making_leaves_the_interpreter_to_others(timing: Timing) -> None:
    """The edge's event loop runs beside it: what `solve` calls for milliseconds must not hold the lock."""
    planning = "offramp.policies.planning"
    shared, kernels = (import_module(f"{planning}.{name}_kernels") for name in ("shared", timing))
    called = [getattr(kernels, name) for name in ("improve", "own_value", "until_next", "spread", "run_down")]
    called += [shared.others_moves, shared.others_value, shared.others_spread]
    assert all(kernel.targetoptions.get("nogil") for kernel in called)
    # What decides lasts microseconds, on the event loop's own thread.
    assert not kernels.best_option.targetoptions.get("nogil")
