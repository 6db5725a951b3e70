"""What the `ddqn` agent computes for a decision, as loops over numbers that numba compiles.

Written once: where numba is missing the same functions run as plain Python, some hundred times slower. Times are
durations in seconds from the instant of the decision; a table covers a square of lags (device, edge), each axis
0..(points - 1) · `step_s`, and a lag past its end counts as the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from offramp import equations
from offramp.equations import BoolArray, FloatArray, IntArray

Function = TypeVar("Function", bound=Callable[..., Any])

try:
    import numba

    def compiled(function: Function) -> Function:
        """Compile for speed, and keep the result on disk."""
        return cast(Function, numba.njit(cache=True, error_model="numpy")(function))

    def compiled_loose(function: Function) -> Function:
        """`compiled`, with sums in any order: for networks, never for times and deadlines."""
        return cast(Function, numba.njit(cache=True, error_model="numpy", fastmath=True)(function))

    COMPILED = True
except ImportError:  # pragma: no cover - the tests have numba

    def compiled(function: Function) -> Function:
        """Leave it as it is: there is nothing to compile with."""
        return function

    compiled_loose = compiled
    COMPILED = False

paper_timeline = compiled(equations.paper_timeline)
on_time = compiled(equations.on_time)

AGES = 4
"""Tables of the outlook: what a task would earn 1, 2, 4 and 8 mean gaps from now if nothing came in between."""

AFTERSTATE = 13
"""Features of an afterstate; those of its scenario follow."""

DROP_ROW, BAD_STATE = -1, -2
"""What `best_row` gives for dropping the task, and for lags that are not numbers."""


class Layers(NamedTuple):
    """Weights: two hidden layers of rectified units, first (features, h), second (h, h); one linear output (h,)."""

    first: FloatArray
    first_bias: FloatArray
    second: FloatArray
    second_bias: FloatArray
    out: FloatArray


class Tables(NamedTuple):
    """An outlook as the loops take it, see `outlook.Outlook`."""

    tables: FloatArray
    step_s: float
    kinds: IntArray
    scale: FloatArray
    features: FloatArray


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
    view: Tables, lags_s: FloatArray, device: int, own_s: FloatArray, edge_s: FloatArray
) -> FloatArray:
    """What the network sees of each afterstate: (afterstates, AFTERSTATE + scenario features).

    lags_s: (N,), each device's lag now. own_s, edge_s: the lags of `device` and of the edge after each choice. The
    devices' order does not matter, and idle ones of a kind are counted, so the cost follows the number that are busy.
    """
    tables, step_s, kinds, scale, scenario = view
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


@compiled_loose
def network_values(layers: Layers, features: FloatArray) -> FloatArray:
    """The network's value of each row of features."""
    first, first_bias, second, second_bias, out = layers
    result = np.empty(len(features))
    low, high = np.empty(len(first_bias)), np.empty(len(second_bias))
    for row in range(len(features)):
        low[:] = first_bias
        for i in range(len(first)):
            for j in range(len(low)):
                low[j] += features[row, i] * first[i, j]
        high[:] = second_bias
        for i in range(len(second)):
            if low[i] > 0.0:
                for j in range(len(high)):
                    high[j] += low[i] * second[i, j]
        total = 0.0
        for j in range(len(out)):
            if high[j] > 0.0:
                total += high[j] * out[j]
        result[row] = total
    return result


@compiled
def edge_release(local: bool, edge_free_s: float, edge_start_s: float, tail_s: float) -> float:
    """When the edge is free again after an option, under `network`: what stays on its device leaves it as it was."""
    return edge_free_s if local else max(edge_free_s, edge_start_s + tail_s)


@compiled
def edge_releases(
    local: BoolArray, edge_free_s: float, edge_start_s: FloatArray, tail_s: FloatArray
) -> FloatArray:
    """`edge_release` of every option."""
    release_s = np.empty(len(local))
    for row in range(len(local)):
        release_s[row] = edge_release(local[row], edge_free_s, edge_start_s[row], tail_s[row])
    return release_s


@compiled
def best_row(
    view: Tables,
    layers: Layers,
    discount: float,
    now_s: float,
    deadline_s: float,
    device: int,
    device_free_s: FloatArray,
    edge_free_s: float,
    send_s: FloatArray,
    release_s: FloatArray,
    finish_s: FloatArray,
    gain: FloatArray,
) -> int:
    """Row of the greatest Q = gain + discount · value of the afterstate; DROP_ROW if dropping is best.

    Everything with `_s` is an instant here: of the device's release, the edge's release and the finish of each
    option, (options,). Only options that finish by the deadline are looked at. BAD_STATE if a lag is NaN.
    """
    if np.isnan(edge_free_s) or np.isnan(device_free_s).any():
        return BAD_STATE
    rows = surviving(send_s, release_s, finish_s, gain, deadline_s)
    count = len(rows)
    own_s, edge_s, earned = np.empty(count + 1), np.empty(count + 1), np.zeros(count + 1)
    for place in range(count):
        own_s[place], edge_s[place] = send_s[rows[place]] - now_s, release_s[rows[place]] - now_s
        earned[place] = gain[rows[place]]
    own_s[count], edge_s[count] = device_free_s[device] - now_s, edge_free_s - now_s
    features = afterstate_features(view, device_free_s - now_s, device, own_s, edge_s)
    choice = int(np.argmax(earned / view.scale[2] + discount * network_values(layers, features)))
    return DROP_ROW if choice == count else int(rows[choice])
