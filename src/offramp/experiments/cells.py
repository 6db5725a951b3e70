"""A cell of an experiment: one policy, or the optimum, on the instances of some seeds of one scenario."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from offramp.cache import code_digest
from offramp.errors import OfframpError
from offramp.instance import Instance, draw_instance
from offramp.linked_state import Replay
from offramp.observation import Timing
from offramp.profile import ExitCoefficients
from offramp.scenario import Scenario
from offramp.schedule import Schedule
from offramp.simulator import simulate_named
from offramp.solvers import SOLVERS, Exact

CEILING: dict[Timing, str] = {"paper": "exact", "network": "network-bound"}
"""The solver whose row stands above the policies: the optimum under `paper`, a certified bound under `network`."""

FALLBACK_LABELS = 1024
"""Labels that `exact` is kept to where the proof would take too much; the bound then stands in the outcome."""

NetworkExits = tuple[ExitCoefficients, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One policy on one instance.

    Attributes:
        gain: total gain.
        on_time_share: share of the tasks that finished in time.
        accuracy: mean accuracy of the exits of those tasks, None where there is none.
        upper_bound: what a solver proved, None for a policy.
        notice: why something else decided in the policy's place, None if nothing did.
    """

    gain: float
    on_time_share: float
    accuracy: float | None
    upper_bound: float | None = None
    notice: str | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """What is run: everything that its outcomes depend on, but for the model's coefficients and the code.

    With `replay` the links are recorded ones; each seed begins at another place of the recording.
    """

    scenario: Scenario
    policy: str
    timing: Timing
    seeds: tuple[int, ...]
    replay: Replay | None = None

    def key(self, exits: NetworkExits) -> str:
        """A name for the cell's result that changes with anything that the result depends on."""
        content = {
            "scenario": self.scenario.model_dump(mode="json"),
            "policy": self.policy,
            "timing": self.timing,
            "seeds": self.seeds,
            "exits": [exit.to_dict() for exit in exits],
            "code": code_digest(),
        }
        if self.replay is not None:
            recording = self.replay.recording
            content["links"] = [
                hashlib.sha256(recording.instants_ms.tobytes()).hexdigest(),
                recording.delay_s,
                self.replay.start_s,
                self.replay.assumed,
            ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


def seeded_instance(scenario: Scenario, exits: NetworkExits, seed: int) -> Instance:
    """The instance that a seed stands for in every command and figure."""
    return draw_instance(scenario, exits, np.random.default_rng(seed))


def policy_rng(seed: int) -> np.random.Generator:
    """The generator that a policy gets under a seed: independent of the one that drew the instance."""
    return np.random.default_rng([seed, 1])


def summarise(instance: Instance, schedule: Schedule) -> Outcome:
    """A schedule's sums."""
    exits = instance.system.exits
    met = [row for row in schedule.tasks if row.on_time]
    accuracies = [exits[row.exit - 1].accuracy_with(row.cut, row.codec) for row in met]
    return Outcome(
        schedule.gain,
        len(met) / len(schedule.tasks),
        float(np.mean(accuracies)) if accuracies else None,
        schedule.upper_bound,
        schedule.notice,
    )


def first_notice(outcomes: Sequence[Outcome]) -> str | None:
    """What is to be said of a policy's outcomes; None if it decided itself every time."""
    return next((outcome.notice for outcome in outcomes if outcome.notice is not None), None)


def run_seed(cell: Cell, exits: NetworkExits, seed: int) -> Outcome:
    """One instance of a cell. Raises OfframpError for an unknown policy."""
    instance = seeded_instance(cell.scenario, exits, seed)
    if cell.policy in SOLVERS:
        return summarise(instance, _solve(cell.policy, instance))
    replay = cell.replay
    if replay is not None:
        length_s = float(replay.recording.instants_ms[-1]) / 1000.0
        place = float(np.random.default_rng([seed, 2]).uniform(0.0, length_s))
        replay = dataclasses.replace(replay, start_s=replay.start_s + place)
    schedule = simulate_named(instance, cell.policy, cell.timing, policy_rng(seed), replay)
    return summarise(instance, schedule)


def _solve(name: str, instance: Instance) -> Schedule:
    try:
        return SOLVERS[name]().solve(instance)
    except OfframpError as error:
        if error.field != "max-labels":
            raise
    return Exact(max_labels=FALLBACK_LABELS).solve(instance)


def run_cell(cell: Cell, exits: NetworkExits) -> list[Outcome]:
    """All instances of a cell, in the order of its seeds."""
    return [run_seed(cell, exits, seed) for seed in cell.seeds]
