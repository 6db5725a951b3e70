"""What a run came to: counts, gain, accuracy, and how good the predictions were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from offramp.equations import FloatArray
from offramp.runtime.outcomes import End, TaskRecord
from offramp.task import UNCODED

REMEMBERED = 10_000
"""The latest tasks that medians and quantiles are over: a device that runs for years must not grow for years."""


def summarise(records: Iterable[TaskRecord], accuracies: Sequence[float]) -> dict[str, Any]:
    """The summary of these records; see `Tally.summary`."""
    tally = Tally(accuracies)
    for record in records:
        tally.add(record)
    return tally.summary()


class Latest:
    """The latest `REMEMBERED` numbers, in memory that is taken once."""

    def __init__(self) -> None:
        self._kept = np.full(REMEMBERED, np.nan)
        self._count = 0

    def add(self, value: float) -> None:
        """One more."""
        self._kept[self._count % REMEMBERED] = value
        self._count += 1

    def values(self) -> FloatArray:
        """All that are kept, in no order."""
        return self._kept[: self._count]


class Tally:
    """Takes records in one by one and keeps none. `accuracies` are those of the exits, the shallowest first."""

    def __init__(self, accuracies: Sequence[float]) -> None:
        self._accuracies = tuple(accuracies)
        self._ends: Counter[End] = Counter()
        self._counted: dict[str, Counter[str]] = {
            name: Counter() for name in ("exits", "cuts", "codecs", "reasons")
        }
        self._gain = self._expected = 0.0
        self._inputs = self._known_inputs = self._correct = self._local = 0
        self._measured_s, self._predicted_s, self._errors = Latest(), Latest(), Latest()

    def add(self, record: TaskRecord) -> None:
        """A task has ended."""
        self._ends[record.end] += 1
        self._gain += record.gain
        if record.reason:
            self._counted["reasons"][record.reason] += 1
        if record.answered:
            self._answered(record)

    def _answered(self, record: TaskRecord) -> None:
        self._counted["exits"][str(record.exit)] += 1
        self._counted["cuts"][str(record.cut)] += 1
        if record.codec != UNCODED:
            self._counted["codecs"][record.codec] += 1
        self._local += record.local
        self._inputs += record.size
        self._expected += record.size * self._accuracies[record.exit - 1]
        if record.correct is not None:
            self._known_inputs += record.size
            self._correct += record.correct
        measured_s = _duration(record, record.measured.finish_s)
        predicted_s = None if record.predicted is None else _duration(record, record.predicted.finish_s)
        if measured_s is not None:
            self._measured_s.add(measured_s)
        if predicted_s is not None:
            self._predicted_s.add(predicted_s)
        if measured_s is not None and predicted_s and not record.local:
            self._errors.add((measured_s - predicted_s) / predicted_s)

    def summary(self) -> dict[str, Any]:
        """The JSON object of `device` and `demo`.

        `accuracy` is over the inputs that were answered, None without labels; `expected_accuracy` is that of the same
        inputs by their exits' own accuracies. `prediction_error` is |measured - predicted| finish over the predicted
        duration, of tasks that went as planned; it and the medians are over the latest `REMEMBERED` tasks.
        """
        submitted, counted = self._ends.total(), self._counted
        return {
            "submitted": submitted,
            **{str(end): self._ends[end] for end in End},
            "on_time_share": self._ends[End.ON_TIME] / submitted if submitted else None,
            "gain": self._gain,
            "mean_gain": self._gain / submitted if submitted else None,
            "accuracy": self._correct / self._known_inputs if self._known_inputs else None,
            "expected_accuracy": self._expected / self._inputs if self._inputs else None,
            "inputs": self._inputs,
            "exits": _sorted(counted["exits"]),
            "cuts": _sorted(counted["cuts"]),
            "codecs": _sorted(counted["codecs"]),
            "local_fallbacks": self._local,
            "reasons": _sorted(counted["reasons"]),
            "prediction_error": _error(self._errors.values()),
            "median_duration_s": _median(self._measured_s.values()),
            "median_predicted_s": _median(self._predicted_s.values()),
        }


def _duration(record: TaskRecord, finish_s: float | None) -> float | None:
    return None if finish_s is None else finish_s - record.arrival_s


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def _error(error: FloatArray) -> dict[str, float] | None:
    if not len(error):
        return None
    return {
        "median": float(np.median(np.abs(error))),
        "p95": float(np.quantile(np.abs(error), 0.95)),
        "bias": float(np.median(error)),
        "tasks": len(error),
    }


def _median(values: FloatArray) -> float | None:
    return float(np.median(values)) if len(values) else None
