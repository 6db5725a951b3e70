"""What a recorded run shows of its devices, links and edge: the terms of the `network` timing model as measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from statistics import median
from typing import Any

import numpy as np

from offramp.equations import FloatArray
from offramp.instance import Instance
from offramp.model.fit import fit_line
from offramp.options import System
from offramp.runtime.course import Course, course_of
from offramp.runtime.outcomes import TaskRecord
from offramp.task import Decision

ENOUGH = 4
"""A term with fewer measurements than this stays as it was declared."""
LEAST_RANGE = 2.0
"""The longest over the shortest duration must be this for them to show what comes on top of all alike."""


@dataclass(frozen=True, slots=True)
class MeasuredTerms:
    """Terms that a run shows; None where it shows too little.

    Attributes:
        device_call_s: what every head takes beside its layers, on a device without slowdown, seconds.
        device_factor: for each device, measured over declared time of its heads, `device_call_s` included.
        edge_call_s, edge_factor: the same of the edge's tails.
        decision_s: from a task's arrival until an idle device begins with it, seconds.
        link_delay_s: what an upload takes beyond its bytes over the rate, until it waits on the edge.
        answer_s: from the end of a tail until the device has the answer.
        heads: for each device, what its heads took over what the terms above say.
        tails: the same of the edge's tails.
    """

    device_call_s: float | None
    device_factor: tuple[float | None, ...]
    edge_call_s: float | None
    edge_factor: float | None
    decision_s: float | None
    link_delay_s: float | None
    answer_s: float | None
    heads: tuple[Course, ...]
    tails: Course

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; of heads and tails the 95 % quantile over the median, `head_spread`, `tail_spread`."""
        values = asdict(self)
        del values["heads"], values["tails"]
        return values | {
            "head_spread": [course.quantile(0.95) for course in self.heads],
            "tail_spread": self.tails.quantile(0.95),
        }

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
        calls = (0.0, self.device_call_s or 0.0), (0.0, self.edge_call_s or 0.0)
        exits = tuple(
            exit.with_calls(*calls).with_edge_factor(self.edge_factor or 1.0) for exit in system.exits
        )
        measured = replace(
            system, exits=exits, device_slowdown=slowdowns, network=replace(system.network, **found)
        )
        return replace(instance, system=measured)


@dataclass(frozen=True, slots=True)
class _Part:
    """One task that the edge has answered, its device, and its declared durations of head and upload."""

    device: int
    head_s: float
    upload_s: float
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
    slowdowns = instance.system.device_slowdown
    heads = [_heads(parts, device, slowdown) for device, slowdown in enumerate(slowdowns)]
    device_call_s = _median((call_s for call_s, _ in map(_call_and_factor, heads)), enough=1)
    ratios = [_ratios(own, device_call_s) for own in heads]
    overall = _median(np.concatenate(ratios))
    factors = [_median(own) or overall for own in ratios]
    tails = _tails(instance.system, parts)
    edge_call_s, edge_factor = _call_and_factor(tails)
    return MeasuredTerms(
        device_call_s,
        tuple(factors),
        edge_call_s,
        edge_factor,
        _median(_waits_s(instance, records)),
        _median(_delays_s(parts, steady)),
        _median(_answers_s(parts)),
        tuple(
            course_of(own[:, 2], *each)
            for own, each in zip(heads, zip(ratios, factors, strict=True), strict=True)
        ),
        course_of(tails[:, 2], _ratios(tails, edge_call_s), edge_factor),
    )


def _ratios(durations: FloatArray, call_s: float | None) -> FloatArray:
    """Measured over declared durations, with what each call takes."""
    ratios: FloatArray = durations[:, 1] / (durations[:, 0] + (call_s or 0.0))
    return ratios


def _parts(instance: Instance, records: Sequence[TaskRecord]) -> Iterable[_Part]:
    for task, record in zip(instance.tasks, records, strict=True):
        if record.exit == 0 or record.local:
            continue
        options = instance.system.options(task.device, task.size)
        row = options.index(record.exit, record.cut, record.codec)
        yield _Part(task.device, float(options.head_s[row]), float(options.upload_s[row]), record)


def _heads(parts: Sequence[_Part], device: int, slowdown: float) -> FloatArray:
    """Declared and measured seconds of a device's heads, by its slowdown, and when they began: [tasks, 3]."""
    instants = [
        (part.head_s, part.record.measured.device_start_s, part.record.measured.send_s)
        for part in parts
        if part.device == device and part.head_s > 0
    ]
    heads = [
        (head_s / slowdown, (send_s - start_s) / slowdown, start_s)
        for head_s, start_s, send_s in instants
        if start_s is not None and send_s is not None and send_s > start_s
    ]
    return np.array(heads).reshape(-1, 3)


def _tails(system: System, parts: Sequence[_Part]) -> FloatArray:
    """Declared and measured seconds of what the edge ran, and when it began, each batch once: [runs, 3]."""
    alone = system.network.max_batch == 1
    runs: dict[tuple[int, int, float, int], list[TaskRecord]] = defaultdict(list)
    for number, record in enumerate(part.record for part in parts):
        if record.edge_computed_s and record.measured.edge_start_s is not None:
            # Tasks of one batch are said to have taken the same time, to the last bit.
            key = (record.exit, record.cut, record.edge_computed_s, number if alone else 0)
            runs[key].append(record)
    tails = [
        (
            system.batch_s([(Decision(r.exit, r.cut, r.codec), r.size) for r in records]),
            computed_s,
            records[0].measured.edge_start_s,
        )
        for (_, _, computed_s, _), records in runs.items()
    ]
    return np.array([tail for tail in tails if tail[0] > 0], dtype=float).reshape(-1, 3)


def _call_and_factor(durations: FloatArray) -> tuple[float | None, float | None]:
    """What comes on top of each declared duration, and the factor on both: a line through what was measured."""
    if len(durations) < ENOUGH:
        return None, None
    declared_s, which = np.unique(durations[:, 0], return_inverse=True)
    medians_s = np.array([np.median(durations[which == place, 1]) for place in range(len(declared_s))])
    if declared_s[-1] >= LEAST_RANGE * declared_s[0]:
        factor, together_s = fit_line(declared_s, medians_s, np.bincount(which).astype(float))
        if factor > 0:
            return together_s / factor, factor
    return 0.0, float(np.median(durations[:, 1] / durations[:, 0]))


def _delays_s(parts: Sequence[_Part], steady: bool) -> Iterable[float | None]:
    """What uploads took beyond their bytes, up to their place in the edge's queue.

    Where no rate says how long the bytes take, they are taken to have crossed when the device says so.
    """
    for part in parts:
        record = part.record
        start_s, sent_s, waited_s = record.link_start_s, record.sent_s, record.edge_waited_s
        edge_start_s = record.measured.edge_start_s
        if edge_start_s is None or start_s is None or waited_s is None:
            continue
        if steady:
            yield max(0.0, edge_start_s - waited_s - start_s - part.upload_s)
        elif sent_s is not None:
            yield max(0.0, edge_start_s - waited_s - sent_s)


def _answers_s(parts: Sequence[_Part]) -> Iterable[float | None]:
    """What answers took to their devices."""
    for record in (part.record for part in parts):
        edge_start_s, finish_s = record.measured.edge_start_s, record.measured.finish_s
        if edge_start_s is not None and finish_s is not None and record.edge_computed_s is not None:
            yield max(0.0, finish_s - edge_start_s - record.edge_computed_s)


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


def _median(values: Iterable[float | None], enough: int = ENOUGH) -> float | None:
    """The median of those that are known, or None for fewer than `enough`."""
    known = [value for value in values if value is not None]
    return float(median(known)) if len(known) >= enough else None
