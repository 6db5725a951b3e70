"""Scenarios that the `ddqn` agent is trained on: a family around one scenario, and networks nobody has measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from offramp.equations import FloatArray, IntArray
from offramp.instance import system_of
from offramp.options import System
from offramp.policies.ddqn_kernels import Tables
from offramp.policies.outlook import Columns, Demand, columns_by_kind, demand_of, look_out
from offramp.profile import ExitCoefficients
from offramp.scenario import Scenario

K_RANGE = (0.8, 9.0)
P_RANGE = (0.03, 0.6)
MAX_DEVICES = 16


@dataclass(eq=False)
class World:
    """One scenario as the rollouts play it, and where its stream stands.

    Attributes:
        lags_s, edge_lag_s: (N,) how far each device is behind, and the edge.
        rate: estimate of the mean gain per task over the greatest gain; None until the first rollout.
    """

    demand: Demand
    probability: float
    slot_s: float
    view: Tables
    columns: Columns
    lags_s: FloatArray
    edge_lag_s: float = 0.0
    rate: float | None = None

    def draw(
        self, rng: np.random.Generator, tasks: int, samples: int
    ) -> tuple[FloatArray, IntArray, IntArray]:
        """Gaps, size indices and devices of what may follow each of `tasks` decisions, (tasks, samples) each."""
        shape = (tasks, samples)
        gaps_s = np.asarray(rng.geometric(self.probability, shape) * self.slot_s, dtype=np.float64)
        sizes = rng.choice(len(self.demand.sizes), shape, p=self.demand.share)
        return gaps_s, sizes, rng.integers(len(self.lags_s), size=shape)


def draw_world(
    base: Scenario, exits: tuple[ExitCoefficients, ...], foreign_share: float, rng: np.random.Generator
) -> World:
    """A scenario of the family around `base`, with its network's coefficients or, at times, those of another.

    k and p are drawn over the ranges of the paper's figures and somewhat past them, N up to MAX_DEVICES, links and
    speeds around the base's; one world in four has devices of two kinds.
    """
    devices = int(rng.integers(1, 9)) if rng.random() < 0.8 else int(rng.integers(9, MAX_DEVICES + 1))
    probability = _log_uniform(rng, *P_RANGE)
    kinds = 2 if devices > 1 and rng.random() < 0.25 else 1
    slow = [base.slowdowns[0] * float(np.exp(rng.normal(0.0, 0.25))) for _ in range(kinds)]
    link = [base.bandwidths[0] * float(np.exp(rng.normal(0.0, 0.4))) for _ in range(kinds)]
    scenario = Scenario.model_validate(
        base.model_dump()
        | {
            "devices": devices,
            "sizes": _sizes(base, rng),
            "k": float(rng.uniform(*K_RANGE)),
            "arrivals": {"kind": "bernoulli", "probability": probability},
            "device_slowdown": tuple(slow[device % kinds] for device in range(devices)),
            "bandwidth_bytes_per_s": tuple(link[device % kinds] for device in range(devices)),
        }
    )
    foreign = rng.random() < foreign_share
    system = system_of(scenario, _foreign_exits(base, rng) if foreign else _jittered(exits, rng))
    return make_world(scenario, system)


def make_world(scenario: Scenario, system: System) -> World:
    """The world of a scenario with Bernoulli arrivals."""
    demand = demand_of(scenario)
    mean_gap_s = float(demand.gaps_s.mean())
    return World(
        demand,
        min(1.0, scenario.slot_s / mean_gap_s),
        scenario.slot_s,
        look_out(system, demand),
        columns_by_kind(system, demand.sizes),
        np.zeros(system.devices),
    )


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _sizes(base: Scenario, rng: np.random.Generator) -> Mapping[str, object]:
    """The base's sizes two times in three; else others in their range, down to a single one."""
    if rng.random() < 2 / 3:
        return base.sizes.model_dump()
    values = [
        int(value) for value in rng.choice(base.sizes.values, rng.integers(1, len(base.sizes.values) + 1))
    ]
    return {"kind": "listed", "values": sorted(set(values))}


def _jittered(exits: tuple[ExitCoefficients, ...], rng: np.random.Generator) -> tuple[ExitCoefficients, ...]:
    """The same network as another host would measure it; of what has tables or codecs, the lines only differ."""

    def scaled(coefficients: FloatArray) -> FloatArray:
        return coefficients * np.exp(rng.normal(0.0, 0.15, (len(coefficients), 1)))

    return tuple(replace(exit, device_s=scaled(exit.device_s), edge_s=scaled(exit.edge_s)) for exit in exits)


def _foreign_exits(base: Scenario, rng: np.random.Generator) -> tuple[ExitCoefficients, ...]:
    """A network of 1 to 7 exits whose whole takes from a fifth of a slot to twelve an input on the base's device."""
    slot_s, slowdown, link = base.slot_s, base.slowdowns[0], base.bandwidths[0]
    count = int(rng.integers(1, 8))
    whole_s = _log_uniform(rng, 0.2, 12.0) * slot_s / slowdown
    shares = np.sort(rng.uniform(0.05, 1.0, count))
    accuracies = np.sort(rng.uniform(0.3, 0.99, count))
    input_bytes = _log_uniform(rng, 0.2, 6.0) * slot_s * link
    exits = []
    for share, accuracy in zip(shares, accuracies, strict=True):
        layers = int(rng.integers(1, 11))
        part = rng.dirichlet(np.ones(layers))
        device_s = np.column_stack([whole_s * share * part, np.full(layers, rng.uniform(0, 1e-4))])
        edge_s = device_s * np.exp(rng.normal(0.0, 0.3))
        inner = input_bytes * np.exp(rng.normal(0.0, 1.0, layers)) * np.linspace(1.5, 0.1, layers)
        output_bytes = np.column_stack([np.concatenate(([input_bytes], inner)), np.zeros(layers + 1)])
        output_bytes[-1, 0] = 40.0
        exits.append(ExitCoefficients(float(accuracy), device_s, edge_s, output_bytes))
    return tuple(exits)
