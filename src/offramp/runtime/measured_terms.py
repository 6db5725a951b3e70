"""What a recorded run shows of its devices, links and edge: the terms of the `network` timing model as measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import cycle, groupby
from statistics import median
from typing import Any

import numpy as np

from offramp.equations import FloatArray
from offramp.instance import Instance
from offramp.model.fit import fit_line
from offramp.runtime.outcomes import TaskRecord

ENOUGH = 4
"""A term with fewer measurements than this stays as it was declared."""
LEAST_SPREAD = 0.1
"""No computation is taken to be faster than this share of what it should take."""


@dataclass(frozen=True, slots=True)
class MeasuredTerms:
    """Terms that a run shows; None where it shows too little.

    Attributes:
        device_factor: for each device, measured over declared time of its heads.
        edge_factor: the same of the edge's tails.
        decision_s: from a task's arrival until an idle device begins with it, seconds.
        link_delay_s: what an upload takes beyond its bytes over the rate, until the edge begins with it.
        answer_s: from the end of a tail until the device has the answer.
        head_spread: for each device, what its heads took over what the factor says, one number a head.
        tail_spread: the same of the edge's tails.
    """

    device_factor: tuple[float | None, ...]
    edge_factor: float | None
    decision_s: float | None
    link_delay_s: float | None
    answer_s: float | None
    head_spread: tuple[tuple[float, ...], ...]
    tail_spread: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; of the spreads the 95 % quantile."""
        ends = [None if not spread else float(np.quantile(spread, 0.95)) for spread in self.head_spread]
        tail = float(np.quantile(self.tail_spread, 0.95)) if self.tail_spread else None
        return asdict(self) | {"head_spread": ends, "tail_spread": tail}

    def applied(self, instance: Instance) -> Instance:
        """The same tasks on the system as it was measured."""
        system = instance.system
        slowdowns = tuple(
            slowdown * (factor or 1.0)
            for slowdown, factor in zip(system.device_slowdown, self.device_factor, strict=True)
        )
        found = {
            name: getattr(self, name)
            for name in ("decision_s", "link_delay_s", "answer_s")
            if getattr(self, name) is not None
        }
        exits = tuple(exit.with_edge_factor(self.edge_factor or 1.0) for exit in system.exits)
        measured = replace(
            system, exits=exits, device_slowdown=slowdowns, network=replace(system.network, **found)
        )
        return replace(instance, system=measured)


class Resampled:
    """A `Spread` that goes through what a run has shown from a drawn place on: slow stretches stay together."""

    def __init__(self, terms: MeasuredTerms, rng: np.random.Generator) -> None:
        self._heads = [_from_anywhere(shown, rng) for shown in terms.head_spread]
        self._tails = _from_anywhere(terms.tail_spread, rng)

    def head(self, device: int) -> float:
        """See `Spread`."""
        return next(self._heads[device])

    def tail(self) -> float:
        """See `Spread`."""
        return next(self._tails)


def _from_anywhere(shown: tuple[float, ...], rng: np.random.Generator) -> Iterator[float]:
    start = int(rng.integers(max(1, len(shown))))
    return cycle((*shown[start:], *shown[:start]) or (1.0,))


@dataclass(frozen=True, slots=True)
class _Part:
    """One task's declared durations of head, upload and tail, and its record."""

    device: int
    head_s: float
    upload_s: float
    tail_s: float
    record: TaskRecord


def measured_terms(
    instance: Instance, records: Sequence[TaskRecord], *, steady: bool = True
) -> MeasuredTerms:
    """What the records of an instance's tasks show; `records[n]` is of task n.

    `steady` says whether its links carried what the instance says of them at every moment.

    Medians over tasks, so that single stalls do not count. Tasks that the device finished alone in the edge's stead
    are left aside: their instants are of more than one plan.
    """
    parts = list(_parts(instance, records))
    ratios = [(part.device, ratio) for part in parts if (ratio := _head_ratio(part)) is not None]
    overall = _median(ratio for _, ratio in ratios)
    factors, spreads = [], []
    for device in range(instance.system.devices):
        own = [ratio for owner, ratio in ratios if owner == device]
        factor = _median(own) or overall
        factors.append(factor)
        spreads.append(tuple(ratio / factor for ratio in own) if factor else ())
    tails = _tails(parts)
    edge_factor, answer_s = _edge(tails)
    return MeasuredTerms(
        tuple(factors),
        edge_factor,
        _median(_waits_s(instance, records)),
        _median(_delays_s(parts, steady), lambda values: float(np.quantile(values, 0.25))),
        answer_s,
        tuple(spreads),
        _tail_spread(tails, edge_factor, answer_s),
    )


def _parts(instance: Instance, records: Sequence[TaskRecord]) -> Iterable[_Part]:
    for task, record in zip(instance.tasks, records, strict=True):
        if record.exit == 0 or record.local:
            continue
        options = instance.system.options(task.device, task.size)
        row = options.index(record.exit, record.cut, record.codec)
        yield _Part(
            task.device,
            float(options.head_s[row]),
            float(options.upload_s[row]),
            float(options.tail_s[row]),
            record,
        )


def _head_ratio(part: _Part) -> float | None:
    start_s, send_s = part.record.measured.device_start_s, part.record.measured.send_s
    if part.head_s <= 0 or start_s is None or send_s is None:
        return None
    return (send_s - start_s) / part.head_s


def _tails(parts: Sequence[_Part]) -> FloatArray:
    """Declared tails, and from their begins until the answers, seconds: [tasks, 2], all > 0."""
    instants = [
        (part.tail_s, part.record.measured.edge_start_s, part.record.measured.finish_s) for part in parts
    ]
    tails = [
        (declared_s, finish_s - start_s)
        for declared_s, start_s, finish_s in instants
        if start_s is not None and finish_s is not None and declared_s > 0 and finish_s > start_s
    ]
    return np.array(tails).reshape(-1, 2)


def _edge(tails: FloatArray) -> tuple[float | None, float | None]:
    """Factor on the declared tails and what an answer takes: a line through what was measured."""
    if len(tails) < ENOUGH:
        return None, None
    factor, answer_s = fit_line(tails[:, 0], tails[:, 1])
    return (factor, answer_s) if factor > 0 else (None, None)


def _tail_spread(tails: FloatArray, factor: float | None, answer_s: float | None) -> tuple[float, ...]:
    if factor is None or answer_s is None:
        return ()
    # What exceeds the line is put on the tail: that is where an edge stalls.
    ratios = (tails[:, 1] - answer_s) / (factor * tails[:, 0])
    return tuple(float(ratio) for ratio in np.maximum(ratios, LEAST_SPREAD))


def _delays_s(parts: Sequence[_Part], steady: bool) -> Iterable[float | None]:
    """What uploads took beyond their bytes, up to the begin of the tail; most find the edge idle.

    Where no rate says how long the bytes take, they are taken to have crossed when the device says so.
    """
    for part in parts:
        start_s, sent_s = part.record.link_start_s, part.record.sent_s
        edge_start_s = part.record.measured.edge_start_s
        if edge_start_s is None or start_s is None:
            continue
        if steady:
            yield max(0.0, edge_start_s - start_s - part.upload_s)
        elif sent_s is not None:
            yield max(0.0, edge_start_s - sent_s)


def _waits_s(instance: Instance, records: Sequence[TaskRecord]) -> Iterable[float | None]:
    """From arrival to begin, of tasks that found their device idle."""
    pairs = sorted(
        zip(instance.tasks, records, strict=True), key=lambda pair: (pair[0].device, pair[1].arrival_s)
    )
    for _, own in groupby(pairs, key=lambda pair: pair[0].device):
        busy_until_s = -np.inf
        for _, record in own:
            start_s, send_s = record.measured.device_start_s, record.measured.send_s
            if start_s is None:
                continue
            if record.arrival_s >= busy_until_s:
                yield start_s - record.arrival_s
            ends = (busy_until_s, start_s, send_s or start_s)
            busy_until_s = max(ends)


def _median(
    values: Iterable[float | None], middle: Callable[[Sequence[float]], float] = median
) -> float | None:
    """The median of those that are known, or None for too few."""
    known = [value for value in values if value is not None]
    return float(middle(known)) if len(known) >= ENOUGH else None
