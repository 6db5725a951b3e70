"""What tasks to come are worth, as the `ddqn` agent sees a scenario: free of any one network's numbers of options.

Everything is made dimensionless by the mean budget, the mean gap between tasks and the greatest gain, so that one
trained network reads the outlook of any coefficients, sizes, links and rates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from offramp import equations
from offramp.bulk import draw_gaps
from offramp.equations import BoolArray, FloatArray, IntArray
from offramp.options import OptionTable, System
from offramp.policies import ddqn_kernels as kernels
from offramp.scenario import Scenario
from offramp.task import Task

POINTS = 33
"""Grid points on each axis of a gain table; the axis ends at the longest budget, past which nothing can finish."""

QUANTILES = 8
GAPS = 2048
"""Gaps drawn from an arrival process whose distribution is taken from a sample."""

LAGS = ((0.0, 0.0), (0.0, 0.5), (0.0, 1.0), (0.5, 0.0), (0.5, 0.5), (0.25, 0.25))
"""Lags of device and edge, in mean budgets, at which a scenario's gain table is sampled for its features."""


FEATURE_NAMES = (
    "log of gap / budget",
    "1 / devices",
    "spread of the gains",
    *(f"share earned at lags {own}, {edge}" for own, edge in LAGS),
    "log load of the fastest options",
    "log load of their heads",
    "log load of their tails",
    "log load of the best options",
    "log load of the best options' heads",
)
SCENARIO = len(FEATURE_NAMES)
"""Features of a scenario."""


class Demand(NamedTuple):
    """What is asked of a system: sizes (S,) with their probability and budget in seconds, and gaps in seconds."""

    sizes: tuple[int, ...]
    share: FloatArray
    budget_s: FloatArray
    gaps_s: FloatArray


def demand_of(scenario: Scenario) -> Demand:
    """The demand that a scenario states."""
    sizes = scenario.sizes.values
    budget_s = np.array([scenario.budget_s(size) for size in sizes])
    gaps_s = draw_gaps(scenario, GAPS, np.random.default_rng(0))
    return Demand(sizes, scenario.sizes.probabilities(), budget_s, gaps_s)


def demand_seen(tasks: Sequence[Task]) -> Demand:
    """The demand that a stream's first tasks show: two tasks at least."""
    sizes = sorted({task.size for task in tasks})
    counts = np.array([sum(task.size == size for task in tasks) for size in sizes], dtype=np.float64)
    budgets_s = [[task.budget_s for task in tasks if task.size == size] for size in sizes]
    arrivals_s = np.array([task.arrival_s for task in tasks])
    return Demand(
        tuple(sizes),
        counts / counts.sum(),
        np.array([float(np.mean(budgets)) for budgets in budgets_s]),
        np.diff(arrivals_s),
    )


def device_kinds(system: System) -> tuple[IntArray, list[int]]:
    """(each device's kind, one device of each kind): devices of one speed and link are one kind."""
    found: dict[tuple[float, float], int] = {}
    kinds = np.array([found.setdefault(system.kind(device), len(found)) for device in range(system.devices)])
    return kinds.astype(np.int64), [int(np.flatnonzero(kinds == kind)[0]) for kind in range(len(found))]


Columns = tuple[FloatArray, FloatArray, FloatArray, FloatArray]


def columns_of(tables: Sequence[OptionTable]) -> Columns:
    """head_s, upload_s, tail_s and gain of a device's option tables, each (sizes, options)."""
    return (
        np.stack([table.head_s for table in tables]),
        np.stack([table.upload_s for table in tables]),
        np.stack([table.tail_s for table in tables]),
        np.stack([table.gain for table in tables]),
    )


def columns_by_kind(system: System, sizes: Sequence[int]) -> Columns:
    """The same for one device of each kind, (kinds, sizes, options)."""
    kinds = [
        columns_of([system.options(device, size) for size in sizes]) for device in device_kinds(system)[1]
    ]
    head_s, upload_s, tail_s, gain = (np.stack(column) for column in zip(*kinds, strict=True))
    return head_s, upload_s, tail_s, gain


def look_out(system: System, demand: Demand) -> kernels.Tables:
    """Describe a system under a demand; takes some milliseconds a kind of device where numba is installed.

    Gives tables (kinds, AGES, POINTS, POINTS) of the expected gain of a task 1, 2, 4 and 8 gaps from now over the
    device's and the edge's lag, seconds between two points of their axes, each device's kind (N,), the scale (mean
    budget, mean gap, greatest gain), and the scenario's features (SCENARIO,).
    """
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
        head_s, upload_s, tail_s, gain = columns = columns_of(options)
        table = kernels.next_gain_table(
            head_s, upload_s, tail_s, gain, demand.share, demand.budget_s, POINTS, step_s
        )
        for age, quantiles_s in enumerate(ages_s):
            tables[kind, age] = kernels.aged_table(table, step_s, quantiles_s)
        weight = float((kinds == kind).mean())
        fresh += weight * table
        loads += weight * _loads(columns, demand, mean_gap_s, system.devices)
        top, low = max(top, float(gain.max())), min(low, float(gain.min()))
    features = np.concatenate(
        (
            [np.log(mean_gap_s / mean_budget_s), 1.0 / system.devices, (top - low) / top],
            _samples(fresh, step_s, mean_budget_s) / top,
            np.log1p(loads),
        )
    )
    scale = np.array([mean_budget_s, mean_gap_s, top])
    return kernels.Tables(tables, step_s, kinds, scale, features)


def _age_quantiles(gaps_s: FloatArray, gaps: int) -> FloatArray:
    """Evenly likely ages after a number of gaps."""
    ends = np.concatenate(([0.0], np.cumsum(gaps_s)))
    gaps = min(gaps, len(gaps_s))
    quantiles: FloatArray = np.quantile(ends[gaps:] - ends[:-gaps], (np.arange(QUANTILES) + 0.5) / QUANTILES)
    return quantiles


def _samples(table: FloatArray, step_s: float, budget_s: float) -> FloatArray:
    return np.array(
        [kernels.interpolate(table, step_s, own * budget_s, edge * budget_s) for own, edge in LAGS]
    )


def _loads(columns: Columns, demand: Demand, gap_s: float, devices: int) -> FloatArray:
    """How busy the idle system's fastest and best choices would keep it, in shares of the gap between tasks."""
    head_s, upload_s, tail_s, gain = columns
    total_s = head_s + upload_s + tail_s
    fits = equations.on_time(total_s - demand.budget_s[:, None], 0.0)
    some = fits.any(axis=1)

    def least(column: FloatArray, among: BoolArray) -> float:
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
