"""What tasks to come are worth, as the `ddqn` agent sees a scenario: free of any one network's numbers of options.

Everything is made dimensionless by the mean budget, the mean gap between tasks and the greatest gain, so that one
trained network reads the outlook of any coefficients, sizes, links and rates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np

from offramp.equations import FloatArray, IntArray
from offramp.options import OptionTable, System
from offramp.policies import ddqn_kernels as kernels
from offramp.scenario import Scenario

POINTS = 33
"""Grid points on each axis of a gain table; the axis ends at the longest budget, past which nothing can finish."""

QUANTILES = 8
GAPS = 2048
"""Gaps drawn from an arrival process whose distribution is taken from a sample."""


class Demand(NamedTuple):
    """What is asked of a system: sizes (S,) with their probability and budget in seconds, and gaps in seconds."""

    sizes: tuple[int, ...]
    share: FloatArray
    budget_s: FloatArray
    gaps_s: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Outlook:
    """Tables and features of one scenario; see `ddqn_kernels.afterstate_features` for shapes.

    Attributes:
        tables: (kinds, AGES, POINTS, POINTS) expected gain of a task 1, 2, 4 and 8 gaps from now.
        step_s: seconds between two points of a table's axis.
        kinds: (N,) the kind of each device.
        scale: mean budget and mean gap in seconds, greatest gain.
        features: (SCENARIO,) dimensionless description of the scenario.
    """

    tables: FloatArray
    step_s: float
    kinds: IntArray
    scale: FloatArray
    features: FloatArray


def demand_of(scenario: Scenario) -> Demand:
    """The demand that a scenario states."""
    instants = np.array(
        list(islice(scenario.arrivals.instants(scenario.slot_s, np.random.default_rng(0)), GAPS + 1))
    )
    sizes = scenario.sizes.values
    budget_s = np.array([scenario.budget_s(size) for size in sizes])
    return Demand(sizes, scenario.sizes.probabilities(), budget_s, np.diff(instants))


def device_kinds(system: System) -> tuple[IntArray, list[int]]:
    """(each device's kind, one device of each kind): devices of one speed and link are one kind."""
    found: dict[tuple[float, float], int] = {}
    kinds = np.array([found.setdefault(system.kind(device), len(found)) for device in range(system.devices)])
    return kinds.astype(np.int64), [int(np.flatnonzero(kinds == kind)[0]) for kind in range(len(found))]


def stacked(tables: Sequence[OptionTable], name: str) -> FloatArray:
    """One column of a device's option tables, (sizes, options)."""
    return np.ascontiguousarray(np.stack([getattr(table, name) for table in tables]))


def look_out(system: System, demand: Demand) -> Outlook:
    """Describe a system under a demand. Takes some milliseconds a kind of device where numba is installed."""
    kinds, examples = device_kinds(system)
    top_budget_s = float(demand.budget_s.max())
    step_s = top_budget_s / (POINTS - 1)
    mean_gap_s = max(float(demand.gaps_s.mean()), 1e-6)
    mean_budget_s = float(demand.share @ demand.budget_s)
    ages_s = [_age_quantiles(demand.gaps_s, 2**age) for age in range(kernels.AGES)]
    tables = np.empty((len(examples), kernels.AGES, POINTS, POINTS))
    fresh = np.zeros((POINTS, POINTS))
    loads = np.zeros(5)
    top, low = 0.0, np.inf
    for kind, device in enumerate(examples):
        options = [system.options(device, size) for size in demand.sizes]
        columns = [stacked(options, name) for name in ("head_s", "upload_s", "tail_s", "gain")]
        table = kernels.next_gain_table(*columns, demand.share, demand.budget_s, POINTS, step_s)
        for age, quantiles_s in enumerate(ages_s):
            tables[kind, age] = kernels.aged_table(table, step_s, quantiles_s)
        weight = float((kinds == kind).mean())
        fresh += weight * table
        loads += weight * _loads(columns, demand, mean_gap_s, system.devices)
        top, low = max(top, float(columns[3].max())), min(low, float(columns[3].min()))
    features = np.concatenate(
        (
            [np.log(mean_gap_s / mean_budget_s), 1.0 / system.devices, (top - low) / top],
            _samples(fresh, step_s, mean_budget_s) / top,
            np.log1p(loads),
        )
    )
    scale = np.array([mean_budget_s, mean_gap_s, top])
    return Outlook(tables, step_s, kinds, scale, features)


SCENARIO = 3 + 6 + 5
"""Features of a scenario."""


def _age_quantiles(gaps_s: FloatArray, gaps: int) -> FloatArray:
    """Evenly likely ages after a number of gaps."""
    ends = np.concatenate(([0.0], np.cumsum(gaps_s)))
    gaps = min(gaps, len(gaps_s))
    quantiles: FloatArray = np.quantile(ends[gaps:] - ends[:-gaps], (np.arange(QUANTILES) + 0.5) / QUANTILES)
    return quantiles


def _samples(table: FloatArray, step_s: float, budget_s: float) -> FloatArray:
    lags = ((0.0, 0.0), (0.0, 0.5), (0.0, 1.0), (0.5, 0.0), (0.5, 0.5), (0.25, 0.25))
    return np.array(
        [kernels.interpolate(table, step_s, own * budget_s, edge * budget_s) for own, edge in lags]
    )


def _loads(columns: list[FloatArray], demand: Demand, gap_s: float, devices: int) -> FloatArray:
    """How busy the idle system's fastest and best choices would keep it, in shares of the gap between tasks."""
    head_s, upload_s, tail_s, gain = columns
    total_s = head_s + upload_s + tail_s
    fits = kernels.on_time(total_s, demand.budget_s[:, None])
    some = fits.any(axis=1)

    def least(column: FloatArray, among: FloatArray) -> float:
        best = np.where(among, column, np.inf).min(axis=1)
        return float(demand.share @ np.where(some, best, 0.0)) / gap_s

    best = fits & (gain == np.where(fits, gain, -np.inf).max(axis=1, keepdims=True))
    return np.array(
        [
            least(total_s, fits),
            least(head_s, fits) / devices,
            least(tail_s, fits),
            least(total_s, best),
            least(head_s, best) / devices,
        ]
    )
