"""Policies side by side on the same drawn instances, each as a share of what a solver proves to be the most."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from offramp.experiments.cells import CEILING, Cell, NetworkExits, Outcome, first_notice, run_cell
from offramp.experiments.engine import Engine, InlineEngine
from offramp.experiments.statistics import Interval, mean_interval
from offramp.linked_state import Replay
from offramp.observation import Timing
from offramp.scenario import Scenario


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """A policy over all seeds. `share_of_optimum` is total gain over the total that a solver proved.

    `notice` says why something else decided in the policy's place, for the first seed where that is so.
    """

    policy: str
    gain: Interval
    on_time_share: Interval
    accuracy: Interval
    share_of_optimum: float | None
    notice: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON; what is not known is null."""
        value: dict[str, Any] = {"policy": self.policy}
        for name in ("gain", "on_time_share", "accuracy"):
            interval: Interval = getattr(self, name)
            value[name] = _number(interval.mean)
            value[f"{name}_half_width"] = _number(interval.half_width)
        value["share_of_optimum"] = self.share_of_optimum
        value["notice"] = self.notice
        return value


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def compare(
    scenario: Scenario,
    exits: NetworkExits,
    policies: Sequence[str],
    seeds: int,
    timing: Timing,
    optimum: bool,
    replay: Replay | None = None,
    engine: Engine | None = None,
) -> Iterator[tuple[int, list[PolicyRow] | None]]:
    """Run every policy on the instances of seeds 0..seeds-1.

    Yields (seeds done, None) after each seed but the last, then (seeds, rows): one row a policy, and first the
    `CEILING` solver's if `optimum`, which must be false with recorded links (`replay`), since no solver bounds
    those. Without an engine it runs in this process. Raises OfframpError for an unknown policy.
    """
    names = [CEILING[timing], *policies] if optimum else list(policies)
    cells = [Cell(scenario, name, timing, (seed,), replay) for seed in range(seeds) for name in names]
    found: dict[Cell, list[Outcome]] = {}
    for cell, result in (engine or InlineEngine()).run(partial(run_cell, exits=exits), cells):
        found[cell] = result
        if len(found) % len(names) == 0 and len(found) < len(cells):
            yield len(found) // len(names), None
    outcomes: dict[str, list[Outcome]] = {name: [] for name in names}
    for cell in cells:
        outcomes[cell.policy] += found[cell]
    best = sum(o.upper_bound or o.gain for o in outcomes[CEILING[timing]]) if optimum else None
    yield seeds, [_row(name, outcomes[name], best) for name in names]


def _row(policy: str, outcomes: Sequence[Outcome], optimum: float | None) -> PolicyRow:
    accuracies = [o.accuracy for o in outcomes if o.accuracy is not None]
    gains = [o.gain for o in outcomes]
    return PolicyRow(
        policy,
        mean_interval(gains),
        mean_interval([o.on_time_share for o in outcomes]),
        mean_interval(accuracies) if accuracies else Interval(math.nan, math.nan),
        sum(gains) / optimum if optimum else None,
        first_notice(outcomes),
    )
