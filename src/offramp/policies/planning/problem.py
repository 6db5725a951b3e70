"""A system and its traffic as the arrays that the planner's recursion works on; sizes fixed before it starts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from offramp.equations import BoolArray, FloatArray, IntArray
from offramp.observation import Timing
from offramp.options import OptionTable, System
from offramp.policies.planning.traffic import TaskClass, Traffic

FORMAT = "offramp.plan/1"
FINE_POINTS = 100
"""Most grid points an axis for traffic that is known and at most `FINE_KINDS` kinds of device."""
COARSE_POINTS = 61
"""Most grid points an axis otherwise."""
FINE_KINDS = 2
NETWORK_SHARE = 0.5
EDGE_POINTS = 8
"""`network` has an axis more: so much of the points along the device's and the link's, and few along the edge's."""
EDGE_TAILS = 8
"""Work at the edge that is told apart under `network`, in longest tails."""
INDIFFERENT = 2e-3
"""Value that a decision gives up for an earlier finish under `network`, where others may overtake."""
ALIKE = 0.15
"""Kinds whose slowdown and bandwidth differ by at most this much, in logarithms, share a table."""
MAX_KINDS = 8
MAX_CLASSES = 16

Kind = tuple[float, float]


class Options(NamedTuple):
    """Candidates as compiled code takes them: class c owns rows start[c]..start[c + 1] - 1 of the others."""

    start: IntArray
    head_s: FloatArray
    upload_s: FloatArray
    tail_s: FloatArray
    gain: FloatArray
    local: BoolArray


class Grid(NamedTuple):
    """Seconds between points: along the device's (and link's) axes, and along the edge's."""

    step_s: float
    edge_step_s: float


class Terms(NamedTuple):
    """What `network` adds, see `offramp.options.NetworkTerms`; `paper` reads none of it."""

    decision_s: float
    link_delay_s: float
    answer_s: float
    edge_workers: float


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """What a plan is computed from, and nothing else: equal problems have equal plans.

    Attributes:
        kinds: (slowdown, bandwidth) of the devices that are planned for, at most `MAX_KINDS`.
        kind_share, own_share: share of the tasks of all devices of each kind, and of one device of it.
        options: candidates of each kind.
        class_share, budget_s: (C,) of the task classes.
        grid, shape: backlogs at multiples of the grid's steps, and how many: (device, edge) under `paper`, (device,
            link, edge) under `network`.
        terms: what `network` adds.
        gap_steps, gap_share: gaps between arrivals in steps, ascending, and their probabilities.
    """

    timing: Timing
    kinds: tuple[Kind, ...]
    kind_share: FloatArray
    own_share: FloatArray
    options: tuple[Options, ...]
    class_share: FloatArray
    budget_s: FloatArray
    grid: Grid
    shape: tuple[int, ...]
    terms: Terms
    gap_steps: IntArray
    gap_share: FloatArray

    @property
    def key(self) -> str:
        """SHA-256 over everything in it: the name of its plan."""
        digest = hashlib.sha256(f"{FORMAT} {self.timing} {self.shape} {self.terms}".encode())
        arrays: list[np.ndarray[Any, Any]] = [
            np.array(self.kinds),
            self.kind_share,
            self.own_share,
            self.class_share,
            self.budget_s,
            np.array(self.grid),
            self.gap_steps,
            self.gap_share,
        ]
        for options in self.options:
            arrays += options
        for array in arrays:
            digest.update(str(array.shape).encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def make_problem(system: System, traffic: Traffic, timing: Timing, most_points: int = FINE_POINTS) -> Problem:
    """Choose the grid, group the devices, and keep the options that can be best for something.

    The grid has at most `most_points` (>= 2) points an axis.
    """
    classes = merged_classes(traffic.classes)
    groups = group_kinds(system)
    kinds = tuple(groups)
    kind_share = np.array([sum(traffic.device_share[n] for n in groups[kind]) for kind in kinds])
    own_share = kind_share / np.array([len(groups[kind]) for kind in kinds])
    options = tuple(_options(system, groups[kind][0], classes, timing) for kind in kinds)
    if len(kinds) > FINE_KINDS:
        most_points = min(most_points, COARSE_POINTS)
    if timing == "paper":
        step_s, points = _steps(traffic, most_points)
        grid = Grid(step_s, step_s)
        shape: tuple[int, ...] = (points, points)
    else:
        step_s, points = _steps(traffic, int(most_points * NETWORK_SHARE))
        longest_tail_s = max(float(kind.tail_s.max(initial=0.0)) for kind in options)
        work_s = min(traffic.horizon_s, EDGE_TAILS * longest_tail_s / system.network.edge_workers)
        grid = Grid(step_s, max(work_s, 1e-6) / (EDGE_POINTS - 1))
        shape = (points, points, EDGE_POINTS)
    gap_steps, gap_share = _on_grid(traffic, step_s, points)
    network = system.network
    return Problem(
        timing=timing,
        kinds=kinds,
        kind_share=kind_share,
        own_share=own_share,
        options=options,
        class_share=np.array([task_class.share for task_class in classes]),
        budget_s=np.array([task_class.budget_s for task_class in classes]),
        grid=grid,
        shape=shape,
        terms=Terms(network.decision_s, network.link_delay_s, network.answer_s, float(network.edge_workers)),
        gap_steps=gap_steps,
        gap_share=gap_share,
    )


def candidates(options: OptionTable, timing: Timing) -> IntArray:
    """Rows that no other row beats: in gain, in time on the device, to the edge, on the edge, and in all.

    Ties keep the first row. A row that is left out is at no state better than one that is kept, because being
    further behind is never worth more.
    """
    reach_s = options.head_s + options.upload_s
    costs = [options.head_s, reach_s, options.tail_s, reach_s + options.tail_s, -options.gain]
    if timing == "network":
        # A local task spares the link and the edge; only its head counts.
        offloaded = np.where(options.local, 0.0, 1.0)
        costs = [
            options.head_s,
            offloaded * options.upload_s,
            offloaded * options.tail_s,
            options.head_s + offloaded * (options.upload_s + options.tail_s),
            offloaded,
            -options.gain,
        ]
    cost = np.stack(costs, axis=1)
    no_worse = (cost[:, None, :] <= cost[None, :, :]).all(axis=2)
    first = np.arange(len(cost))
    beaten = no_worse & ~(no_worse.T & (first[:, None] >= first[None, :]))
    return np.flatnonzero(~beaten.any(axis=0))


def candidate_options(tables: list[OptionTable], timing: Timing) -> Options:
    """The candidates of several tables, one after the other."""
    kept = [take(table, candidates(table, timing)) for table in tables]
    start = np.concatenate((np.zeros(1, np.int64), np.cumsum([len(one.gain) for one in kept])))
    return Options(start, *(np.concatenate(columns) for columns in list(zip(*kept, strict=True))[1:]))


def take(table: OptionTable, rows: IntArray) -> Options:
    """Rows of a table as one class of candidates."""
    return Options(
        np.array([0, len(rows)]),
        table.head_s[rows],
        table.upload_s[rows],
        table.tail_s[rows],
        table.gain[rows],
        table.local[rows],
    )


def _options(system: System, device: int, classes: tuple[TaskClass, ...], timing: Timing) -> Options:
    return candidate_options([system.options(device, one.size) for one in classes], timing)


def merged_classes(classes: tuple[TaskClass, ...]) -> tuple[TaskClass, ...]:
    """At most `MAX_CLASSES` classes: neighbours in size share the one of them that occurs most often."""
    if len(classes) <= MAX_CLASSES:
        return classes
    merged = []
    for part in np.array_split(np.arange(len(classes)), MAX_CLASSES):
        members = [classes[index] for index in part]
        chief = max(members, key=lambda task_class: task_class.share)
        merged.append(TaskClass(chief.size, chief.budget_s, sum(member.share for member in members)))
    return tuple(merged)


def group_kinds(system: System) -> dict[Kind, list[int]]:
    """Devices by kind; kinds that are `ALIKE` count as one, and so do the nearest where there are too many.

    Measured devices differ a little, always; what they differ by is no reason for tables of their own.
    """
    groups: dict[Kind, list[int]] = {}
    for device in range(system.devices):
        groups.setdefault(system.kind(device), []).append(device)
    if len(groups) == 1:
        return groups
    kinds = list(groups)
    place = np.log(np.maximum(np.array(kinds), 1e-9))
    distance = np.full(len(kinds), np.inf)
    nearest = np.zeros(len(kinds), dtype=np.int64)
    # The kind that is farthest from all that are chosen is chosen next; the largest group comes first.
    farthest = int(np.argmax([len(groups[kind]) for kind in kinds]))
    merged: list[int] = []
    while len(merged) < MAX_KINDS and distance[farthest] > ALIKE:
        apart = np.abs(place - place[farthest]).max(axis=1)
        nearest = np.where(apart < distance, len(merged), nearest)
        distance = np.minimum(distance, apart)
        merged.append(farthest)
        farthest = int(np.argmax(distance))
    gathered: dict[Kind, list[int]] = {kinds[index]: [] for index in merged}
    for index, kind in enumerate(kinds):
        gathered[kinds[merged[int(nearest[index])]]] += groups[kind]
    return gathered


def _steps(traffic: Traffic, points: int) -> tuple[float, int]:
    """Step and number of points: parts of a slot where the traffic is slotted and its slots are few enough."""
    intervals = points - 1
    if traffic.slot_s is not None:
        slots = int(np.ceil(traffic.horizon_s / traffic.slot_s - 1e-9))
        if slots <= intervals:
            parts = intervals // slots
            return traffic.slot_s / parts, slots * parts + 1
    return traffic.horizon_s / intervals, points


def _on_grid(traffic: Traffic, step_s: float, points: int) -> tuple[IntArray, FloatArray]:
    """Gaps as whole steps: one that lies between two is shared between them so that its mean stays."""
    share = np.zeros(points + 1)
    place = np.minimum(traffic.gaps_s / step_s, points - 1e-9)
    place = np.where(np.abs(place - np.rint(place)) < 1e-6, np.rint(place), place)
    base = np.minimum(place.astype(np.int64), points - 1)
    np.add.at(share, base, traffic.gap_share * (1 - (place - base)))
    np.add.at(share, base + 1, traffic.gap_share * (place - base))
    steps = np.flatnonzero(share > 0)
    return steps, share[steps]
