"""What the `ddqn` agent computes for a decision, as loops over numbers that numba compiles.

Written once: where numba is missing the same functions run as plain Python, some hundred times slower. Times are
durations in seconds from the instant of the decision; a table covers a square of lags (device, edge), each axis
0..(points - 1) · `step_s`, and a lag past its end counts as the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from offramp import equations
from offramp.equations import FloatArray, IntArray

Function = TypeVar("Function", bound=Callable[..., Any])

try:
    import numba

    def compiled(function: Function) -> Function:
        """Compile for speed, and keep the result on disk."""
        result: Function = numba.njit(cache=True, error_model="numpy")(function)
        return result

    COMPILED = True
except ImportError:  # pragma: no cover - the tests have numba

    def compiled(function: Function) -> Function:
        """Leave it as it is: there is nothing to compile with."""
        return function

    COMPILED = False

paper_timeline = compiled(equations.paper_timeline)
on_time = compiled(equations.on_time)

AGES = 4
"""Tables of the outlook: what a task would earn 1, 2, 4 and 8 mean gaps from now if nothing came in between."""

AFTERSTATE = 13
"""Features of an afterstate; those of its scenario follow."""


@compiled
def next_gain_table(
    head_s: FloatArray,
    upload_s: FloatArray,
    tail_s: FloatArray,
    gain: FloatArray,
    share: FloatArray,
    budget_s: FloatArray,
    points: int,
    step_s: float,
) -> FloatArray:
    """Expected best gain of a task that meets (device lag, edge lag): (points, points).

    head_s, upload_s, tail_s, gain are (sizes, options); share and budget_s, (sizes,), are each size's probability
    and relative deadline.
    """
    table = np.zeros((points, points))
    for i in range(points):
        for j in range(points):
            total = 0.0
            for size in range(len(share)):
                best = 0.0
                for row in range(head_s.shape[1]):
                    if gain[size, row] > best:
                        line = paper_timeline(
                            0.0,
                            i * step_s,
                            j * step_s,
                            head_s[size, row],
                            upload_s[size, row],
                            tail_s[size, row],
                        )
                        if on_time(line[3], budget_s[size]):
                            best = gain[size, row]
                total += share[size] * best
            table[i, j] = total
    return table


@compiled
def interpolate(table: FloatArray, step_s: float, device_lag_s: float, edge_lag_s: float) -> float:
    """Bilinear value of a square table at a pair of lags."""
    last = table.shape[0] - 1
    x = min(max(device_lag_s / step_s, 0.0), last - 1e-9)
    y = min(max(edge_lag_s / step_s, 0.0), last - 1e-9)
    i, j = int(x), int(y)
    x, y = x - i, y - j
    low = table[i, j] * (1.0 - y) + table[i, j + 1] * y
    high = table[i + 1, j] * (1.0 - y) + table[i + 1, j + 1] * y
    value: float = low * (1.0 - x) + high * x
    return value


@compiled
def aged_table(table: FloatArray, step_s: float, ages_s: FloatArray) -> FloatArray:
    """Mean of a table over lags that have shrunk by each of `ages_s`."""
    points = table.shape[0]
    result = np.zeros((points, points))
    for i in range(points):
        for j in range(points):
            total = 0.0
            for age_s in ages_s:
                total += interpolate(table, step_s, i * step_s - age_s, j * step_s - age_s)
            result[i, j] = total / len(ages_s)
    return result


@compiled
def surviving(
    send_s: FloatArray, release_s: FloatArray, finish_s: FloatArray, gain: FloatArray, deadline_s: float
) -> IntArray:
    """Rows that finish in time and that no other row beats in device release, edge release and gain at once."""
    rows = np.empty(len(gain), np.int64)
    count = 0
    for row in range(len(gain)):
        if not on_time(finish_s[row], deadline_s):
            continue
        beaten = False
        for kept in rows[:count]:
            if send_s[kept] <= send_s[row] and release_s[kept] <= release_s[row] and gain[kept] >= gain[row]:
                beaten = True
                break
        if beaten:
            continue
        left = 0
        for kept in rows[:count]:
            if not (
                send_s[row] <= send_s[kept] and release_s[row] <= release_s[kept] and gain[row] >= gain[kept]
            ):
                rows[left] = kept
                left += 1
        rows[left] = row
        count = left + 1
    return rows[:count]


@compiled
def afterstate_features(
    tables: FloatArray,
    step_s: float,
    kinds: IntArray,
    lags_s: FloatArray,
    device: int,
    own_s: FloatArray,
    edge_s: FloatArray,
    scale: FloatArray,
    scenario: FloatArray,
) -> FloatArray:
    """What the network sees of each afterstate: (afterstates, AFTERSTATE + scenario features).

    tables: (kinds, AGES, points, points) aged gain tables. kinds, lags_s: (N,), each device's kind and lag now.
    own_s, edge_s: the lags of `device` and of the edge after each choice. scale: (mean budget, mean gap, greatest
    gain), seconds, seconds, gain. The devices' order does not matter, and idle ones of a kind are counted, so the
    cost follows the number that are busy.
    """
    devices = len(kinds)
    idle = np.zeros(tables.shape[0])
    busy = np.empty(devices, np.int64)
    count = 0
    lag_sum, lag_max = 0.0, 0.0
    for other in range(devices):
        if other == device:
            continue
        if lags_s[other] > 0.0:
            busy[count] = other
            count += 1
            lag_sum += lags_s[other]
            lag_max = max(lag_max, lags_s[other])
        else:
            idle[kinds[other]] += 1.0
    budget_s, gap_s, top = scale[0], scale[1], scale[2]
    result = np.empty((len(own_s), AFTERSTATE + len(scenario)))
    for row in range(len(own_s)):
        own, edge = max(own_s[row], 0.0), max(edge_s[row], 0.0)
        for age in range(AGES):
            mine = interpolate(tables[kinds[device], age], step_s, own, edge)
            total = mine
            for kind in range(len(idle)):
                if idle[kind] > 0.0:
                    total += idle[kind] * interpolate(tables[kind, age], step_s, 0.0, edge)
            for other in busy[:count]:
                total += interpolate(tables[kinds[other], age], step_s, lags_s[other], edge)
            result[row, age] = total / devices / top
            if age % 2 == 0:
                result[row, AGES + age // 2] = mine / devices / top
        result[row, 6] = own / budget_s
        result[row, 7] = edge / budget_s
        result[row, 8] = np.log1p(own / gap_s)
        result[row, 9] = np.log1p(edge / gap_s)
        result[row, 10] = (lag_sum + own) / devices / budget_s
        result[row, 11] = max(lag_max, own) / budget_s
        result[row, 12] = (count + (own > 0.0)) / devices
        result[row, AFTERSTATE:] = scenario
    return result


@compiled
def network_values(
    features: FloatArray,
    first: FloatArray,
    first_bias: FloatArray,
    second: FloatArray,
    second_bias: FloatArray,
    out: FloatArray,
) -> FloatArray:
    """The network's value of each row of features: two hidden layers of rectified units, one linear output."""
    result = np.empty(len(features))
    for row in range(len(features)):
        hidden = first_bias.copy()
        for i in range(first.shape[0]):
            hidden += features[row, i] * first[i]
        deeper = second_bias.copy()
        for i in range(second.shape[0]):
            if hidden[i] > 0.0:
                deeper += hidden[i] * second[i]
        total = 0.0
        for i in range(len(out)):
            if deeper[i] > 0.0:
                total += deeper[i] * out[i]
        result[row] = total
    return result
