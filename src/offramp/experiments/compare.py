"""Policies side by side on the same drawn instances, each as a share of the clairvoyant optimum."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from offramp.experiments.statistics import Interval, mean_interval
from offramp.instance import Instance, draw_instance
from offramp.observation import Timing
from offramp.profile import ExitCoefficients
from offramp.scenario import Scenario
from offramp.schedule import Schedule
from offramp.simulator import simulate_named
from offramp.solvers import SOLVERS

OPTIMUM = "exact"
"""The row of the clairvoyant optimum, by the name of its solver."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One policy on one instance: total gain, share of tasks on time, mean accuracy of those tasks' exits."""

    gain: float
    on_time_share: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """A policy over all seeds. `share_of_optimum` is total gain over total optimum (None without one)."""

    policy: str
    gain: Interval
    on_time_share: Interval
    accuracy: Interval
    share_of_optimum: float | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON; what is not known is null."""
        value: dict[str, Any] = {"policy": self.policy}
        for name in ("gain", "on_time_share", "accuracy"):
            interval: Interval = getattr(self, name)
            value[name] = _number(interval.mean)
            value[f"{name}_half_width"] = _number(interval.half_width)
        value["share_of_optimum"] = self.share_of_optimum
        return value


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def seeded_instance(scenario: Scenario, exits: tuple[ExitCoefficients, ...], seed: int) -> Instance:
    """The instance that a seed stands for in every command and figure."""
    return draw_instance(scenario, exits, np.random.default_rng(seed))


def policy_rng(seed: int) -> np.random.Generator:
    """The generator that a policy gets under a seed: independent of the one that drew the instance."""
    return np.random.default_rng([seed, 1])


def outcome(instance: Instance, schedule: Schedule) -> Outcome:
    """Summarise a schedule; accuracy is NaN where no task was on time."""
    exits = [row.exit for row in schedule.tasks if row.on_time]
    accuracies = [instance.system.exits[exit - 1].accuracy for exit in exits]
    return Outcome(
        schedule.gain,
        len(exits) / len(schedule.tasks),
        float(np.mean(accuracies)) if accuracies else float("nan"),
    )


def compare(
    scenario: Scenario,
    exits: tuple[ExitCoefficients, ...],
    policies: Sequence[str],
    seeds: int,
    timing: Timing,
    optimum: bool,
) -> Iterator[tuple[int, list[PolicyRow] | None]]:
    """Run every policy on the instances of seeds 0..seeds-1.

    Yields (seeds done, None) after each seed but the last, then (seeds, rows): one row a policy, and under the
    `paper` timing the optimum's row first if `optimum`. Raises OfframpError for an unknown policy.
    """
    with_optimum = optimum and timing == "paper"
    names = [OPTIMUM, *policies] if with_optimum else list(policies)
    outcomes: dict[str, list[Outcome]] = {name: [] for name in names}
    for seed in range(seeds):
        instance = seeded_instance(scenario, exits, seed)
        for name in names:
            if name == OPTIMUM:
                schedule = SOLVERS[OPTIMUM](instance)
            else:
                schedule = simulate_named(instance, name, timing, policy_rng(seed))
            outcomes[name].append(outcome(instance, schedule))
        if seed + 1 < seeds:
            yield seed + 1, None
    best = sum(o.gain for o in outcomes[OPTIMUM]) if with_optimum else None
    yield seeds, [_row(name, outcomes[name], best) for name in names]


def _row(policy: str, outcomes: Sequence[Outcome], optimum: float | None) -> PolicyRow:
    accuracies = [o.accuracy for o in outcomes if not math.isnan(o.accuracy)]
    gains = [o.gain for o in outcomes]
    return PolicyRow(
        policy,
        mean_interval(gains),
        mean_interval([o.on_time_share for o in outcomes]),
        mean_interval(accuracies) if accuracies else Interval(float("nan"), float("nan")),
        sum(gains) / optimum if optimum else None,
    )
