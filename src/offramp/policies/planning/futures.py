"""Sampled futures: tasks that may come next, drawn once and used over again by every decision."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from offramp.equations import FloatArray, IntArray
from offramp.observation import Timing
from offramp.options import System
from offramp.policies.planning.problem import Options, candidate_options, group_kinds
from offramp.policies.planning.traffic import Traffic

TASKS = 10
"""Tasks that a future holds."""


class Futures(NamedTuple):
    """F futures of T tasks, instants counted from the decision; arrays (F, T), `who` (F, seats).

    A seat stands for a device: `who` says which, so that a future touches few devices whatever N.
    """

    arrival_s: FloatArray
    budget_s: FloatArray
    group: IntArray
    seat: IntArray
    who: IntArray


class Prices(NamedTuple):
    """Gain that a second of a busy device, link and edge is taken to cost when labels are compared."""

    device: float
    link: float
    edge: float


def draw_futures(
    system: System, traffic: Traffic, timing: Timing, count: int, rng: np.random.Generator
) -> tuple[Futures, Options]:
    """Futures, and the options of their tasks: `group` is a row of `Options.start`, one a kind and class."""
    classes = traffic.classes
    kinds = group_kinds(system)
    kind_of = np.empty(system.devices, dtype=np.int64)
    for kind, devices in enumerate(kinds.values()):
        kind_of[devices] = kind
    tables = [system.options(devices[0], one.size) for devices in kinds.values() for one in classes]
    shape = (count, TASKS)
    gap_s = rng.choice(traffic.gaps_s, size=shape, p=traffic.gap_share / traffic.gap_share.sum())
    number = rng.choice(len(classes), size=shape, p=[one.share for one in classes])
    device = rng.choice(system.devices, size=shape, p=traffic.device_share)
    who = np.zeros((count, min(TASKS, system.devices)), dtype=np.int64)
    seat = np.empty(shape, dtype=np.int64)
    for future in range(count):
        present, seat[future] = np.unique(device[future], return_inverse=True)
        who[future, : len(present)] = present
    futures = Futures(
        np.cumsum(gap_s, axis=1),
        np.array([one.budget_s for one in classes])[number],
        kind_of[device] * len(classes) + number,
        seat,
        who,
    )
    return futures, candidate_options(tables, timing)


def busy_prices(system: System, traffic: Traffic, timing: Timing) -> Prices:
    """A busy second costs the tasks that come in it a part of their gain; the edge is everybody's."""
    gap_s = max(float(traffic.gaps_s @ traffic.gap_share), 1e-9)
    budget_s = sum(one.budget_s * one.share for one in traffic.classes)
    each = min(1.0 / budget_s, 1.0 / gap_s)
    if timing == "paper":
        return Prices(each / system.devices, 0.0, each)
    return Prices(each / system.devices, each / system.devices, each)
