"""Write a policy of your own and set it beside the shipped ones, on a network described by four lines of numbers."""

from __future__ import annotations

from typing import Self

import numpy as np

from offramp.instance import draw_instance
from offramp.observation import Observation
from offramp.policies import POLICIES, Context, Policy, choose
from offramp.profile import ExitCoefficients
from offramp.scenario import Scenario
from offramp.simulator import simulate
from offramp.task import Decision


def exit_of(accuracy: float, layers: int, edge_s: float, crossing_bytes: float) -> ExitCoefficients:
    """An exit whose layers take equal time, and whose cuts between two layers cross equal bytes."""
    each = np.column_stack([np.full(layers, edge_s / layers), np.zeros(layers)])
    crossing = np.array([3072.0, *[crossing_bytes] * (layers - 1), 40.0])
    return ExitCoefficients(accuracy, each, each, np.column_stack([crossing, np.zeros(layers + 1)]))


EXITS = (
    exit_of(0.74, 3, 0.0005, 16384.0),
    exit_of(0.78, 4, 0.0010, 12288.0),
    exit_of(0.87, 6, 0.0018, 8192.0),
    exit_of(0.91, 8, 0.0027, 4096.0),
)


class Considerate:
    """Myopic that leaves a third of the budget to the tasks to come, where an exit allows it."""

    @classmethod
    def create(cls, context: Context) -> Self:
        return cls()

    def decide(self, observation: Observation) -> Decision:
        finish_s = observation.timeline().finish_s
        in_time = observation.feasible(finish_s)
        early = in_time & (finish_s <= observation.task.arrival_s + 2 / 3 * observation.task.budget_s)
        return choose(observation.options, early if early.any() else in_time, finish_s)


def mean_gain(policy: type[Policy], scenario: Scenario) -> float:
    gains = []
    for seed in range(10):
        instance = draw_instance(scenario, EXITS, np.random.default_rng(seed))
        context = Context(instance.system, "paper", scenario, np.random.default_rng([seed, 1]))
        gains.append(simulate(instance, policy.create(context), "paper").gain)
    return float(np.mean(gains))


if __name__ == "__main__":
    for p in (0.1, 0.3):
        scenario = Scenario(device_slowdown=10.0).changed(p=p)
        shown = {name: mean_gain(POLICIES[name], scenario) for name in ("greedy", "myopic")}
        shown["considerate"] = mean_gain(Considerate, scenario)
        print(f"p = {p}: " + ", ".join(f"{name} {gain:.1f}" for name, gain in shown.items()))
