"""Independent judges of the solvers: the arithmetic of Section II is written out again, so that a mistake shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from offramp.instance import Instance
from offramp.profile import ExitCoefficients


@dataclass(frozen=True)
class Choice:
    """One (exit, cut, codec) of one task: durations in seconds and gain."""

    exit: int
    cut: int
    head_s: float
    upload_s: float
    tail_s: float
    gain: float
    codec: str = "fp32"


def layer_s(exit: ExitCoefficients, side: str, layer: int, size: int) -> float:
    """Seconds of a layer (1..l) by its table, if it has one, or its row."""
    for table in exit.tables:
        if (table.side, table.layer) == (side, layer):
            left, right = table.points[:2]
            for point in table.points[2:]:
                if size > right[0]:
                    left, right = right, point
            slope = (right[1] - left[1]) / (right[0] - left[0])
            return max(0.0, left[1] + slope * (size - left[0]))
    slope, rest = (exit.device_s if side == "device" else exit.edge_s)[layer - 1]
    return float(slope * size + rest)


def choices(instance: Instance, number: int) -> list[Choice]:
    """All choices of a task, straight from the coefficients."""
    task, system = instance.tasks[number], instance.system
    slowdown, bandwidth = system.device_slowdown[task.device], system.bandwidth_bytes_per_s[task.device]
    least = min(exit.accuracy for exit in system.exits)
    found = []
    for index, exit in enumerate(system.exits):

        def gain_at(accuracy: float) -> float:
            satisfaction = 1 / (1 + math.exp(-system.gain.accuracy_slope * (accuracy - least)))
            return math.ceil(accuracy) + system.gain.accuracy_weight * satisfaction

        gain = gain_at(exit.accuracy)
        layers = len(exit.device_s)
        for cut in range(layers + 1):
            head_s = sum(slowdown * layer_s(exit, "device", layer, task.size) for layer in range(1, cut + 1))
            tail_s = sum(layer_s(exit, "edge", layer, task.size) for layer in range(cut + 1, layers + 1))
            slope, rest = exit.output_bytes[cut]
            found.append(Choice(index + 1, cut, head_s, (slope * task.size + rest) / bandwidth, tail_s, gain))
            for coded in (each for each in exit.codecs if each.cut == cut):
                encode_s, decode_s, crossing = (
                    slope * task.size + rest
                    for slope, rest in (coded.device_s, coded.edge_s, coded.output_bytes)
                )
                found.append(
                    Choice(
                        index + 1,
                        cut,
                        head_s + slowdown * encode_s,
                        crossing / bandwidth,
                        tail_s + decode_s,
                        gain_at(coded.accuracy),
                        coded.codec,
                    )
                )
    return found


def brute_force(instance: Instance) -> float:
    """Greatest gain over every decision for every task, late ones included. Equal states are looked at once."""
    devices = instance.system.devices
    states = np.full((1, devices + 1), -np.inf)
    gains = np.zeros(1)
    for number, task in enumerate(instance.tasks):
        new_states, new_gains = [states], [gains]
        for choice in choices(instance, number):
            after = states.copy()
            after[:, task.device] = np.maximum(task.arrival_s, states[:, task.device]) + choice.head_s
            after[:, -1] = np.maximum(after[:, task.device] + choice.upload_s, states[:, -1]) + choice.tail_s
            met = after[:, -1] <= task.arrival_s + task.budget_s + 1e-9
            new_states.append(after)
            new_gains.append(gains + np.where(met, choice.gain, 0.0))
        states, gains = np.concatenate(new_states), np.concatenate(new_gains)
        order = np.lexsort((-gains, *states.T))
        states, gains = states[order], gains[order]
        first = np.append(True, (states[1:] != states[:-1]).any(axis=1))
        states, gains = states[first], gains[first]
    return float(gains.max())


def recomputed_gain(instance: Instance, decisions: Sequence[tuple[int, int] | tuple[int, int, str]]) -> float:
    """Gain of (exit, cut) or (exit, cut, codec) under Section II-B."""
    device_free_s = [-math.inf] * instance.system.devices
    edge_free_s = -math.inf
    total = 0.0
    for number, (task, decision) in enumerate(zip(instance.tasks, decisions, strict=True)):
        if decision[0] == 0:
            continue
        wanted = (*decision, "fp32")[:3]
        (choice,) = (c for c in choices(instance, number) if (c.exit, c.cut, c.codec) == wanted)
        send_s = max(task.arrival_s, device_free_s[task.device]) + choice.head_s
        device_free_s[task.device] = send_s
        edge_free_s = max(send_s + choice.upload_s, edge_free_s) + choice.tail_s
        if edge_free_s <= task.arrival_s + task.budget_s + 1e-9:
            total += choice.gain
    return total


def listing(instance: Instance, slot_s: float) -> float:
    """Algorithm 1 as it is printed, over every start for every end of every task: O(M · τ²).

    Where the listing reads a G(i, j) it never set, j being past every deadline so far, that is the last one it set.
    A task whose deadline is before an earlier one's leaves G(i, j) = max(G(i-1, j), G(i, own deadline)) from there on.
    F = 0 earns nothing, though the printed formula gives it a trace of a gain.
    """
    arrival = [math.ceil(task.arrival_s / slot_s - 1e-9) for task in instance.tasks]
    deadline = [math.floor((task.arrival_s + task.budget_s) / slot_s + 1e-9) for task in instance.tasks]
    value = [0.0] * (max(*arrival, *deadline) + 2)
    within: dict[tuple[int, int], list[float]] = {}
    known = 0
    for number, task in enumerate(instance.tasks):
        first, last = arrival[number], deadline[number]
        for slot in range(known + 1, max(first, last) + 1):
            value[slot] = value[known]
        known = max(known, last, first)
        if last < first:
            continue
        gains = within.setdefault((task.device, task.size), [])
        if len(gains) <= last - first:
            table = choices(instance, number)
            for slots in range(len(gains), last - first + 1):
                fit = [
                    c.gain
                    for c in table
                    if slots > 0 and math.ceil((c.head_s + c.upload_s + c.tail_s) / slot_s - 1e-9) <= slots
                ]
                gains.append(max(fit, default=0.0))
        after = value[first : last + 1]
        for end in range(first, last + 1):
            best = value[end]
            for start in range(first, end):
                if value[start] + gains[end - start] > best:
                    best = value[start] + gains[end - start]
            after[end - first] = best
        value[first : last + 1] = after
        for slot in range(last + 1, known + 1):
            value[slot] = max(value[slot], after[-1])
    return value[known]


@dataclass(frozen=True)
class Proof:
    """What CP-SAT says: the decisions, whether it proved them best, and how long that took."""

    decisions: list[tuple[int, int]]
    optimal: bool
    seconds: float


def cp_sat(instance: Instance, tick_s: float, limit_s: float = 60.0, workers: int = 1) -> Proof:
    """The same optimum as an integer program. Exact where every duration and instant is a whole number of ticks."""
    from ortools.sat.python import cp_model

    def ticks(seconds: float) -> int:
        return round(seconds / tick_s)

    model = cp_model.CpModel()
    horizon = max(ticks(task.arrival_s + task.budget_s) for task in instance.tasks) + 1
    device_free: list[object] = [0] * instance.system.devices
    edge_free: object = 0
    picks, objective = [], []
    for number, task in enumerate(instance.tasks):
        due = ticks(task.arrival_s + task.budget_s)
        table = [
            c
            for c in choices(instance, number)
            if ticks(task.arrival_s) + ticks(c.head_s) + ticks(c.upload_s) + ticks(c.tail_s) <= due
        ]
        picked = [model.new_bool_var("") for _ in table]
        picks.append((table, picked))
        if not table:
            continue
        served = model.new_bool_var("")
        model.add(sum(picked) == served)
        start = model.new_int_var(ticks(task.arrival_s), horizon, "")
        send = model.new_int_var(0, 2 * horizon, "")
        model.add(start >= device_free[task.device])
        model.add(send >= start + sum(ticks(c.head_s) * x for c, x in zip(table, picked, strict=True)))
        finish = model.new_int_var(0, horizon, "")
        tail = sum(ticks(c.tail_s) * x for c, x in zip(table, picked, strict=True))
        upload = sum(ticks(c.upload_s) * x for c, x in zip(table, picked, strict=True))
        model.add(finish >= edge_free)
        model.add(finish >= edge_free + tail)
        model.add(finish >= send + upload + tail).only_enforce_if(served)
        model.add(finish <= due).only_enforce_if(served)
        device_free[task.device], edge_free = send, finish
        objective += [round(c.gain * 1e10) * x for c, x in zip(table, picked, strict=True)]
    model.maximize(sum(objective))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = workers
    solver.parameters.max_time_in_seconds = limit_s
    status = solver.solve(model)
    decisions = []
    for table, picked in picks:
        chosen = [c for c, x in zip(table, picked, strict=True) if solver.boolean_value(x)]
        decisions.append((chosen[0].exit, chosen[0].cut) if chosen else (0, 0))
    return Proof(decisions, status == cp_model.OPTIMAL, solver.wall_time)
