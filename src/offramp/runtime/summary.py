"""What a run came to: counts, gain, accuracy, and how good the predictions were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from offramp.runtime.outcomes import End, TaskRecord
from offramp.task import UNCODED


def summarise(records: Sequence[TaskRecord], accuracies: Sequence[float]) -> dict[str, Any]:
    """The JSON object of `device` and `demo`.

    `accuracy` is over the inputs that were answered, None without labels; `expected_accuracy` is that of the same
    inputs by their exits' own accuracies. `prediction_error` is |measured - predicted| finish over the predicted
    duration, of tasks that went as planned.
    """
    ends = Counter(record.end for record in records)
    answered = [record for record in records if record.answered]
    inputs = sum(record.size for record in answered)
    known = [record for record in answered if record.correct is not None]
    known_inputs = sum(record.size for record in known)
    expected = sum(record.size * accuracies[record.exit - 1] for record in answered)
    gain = sum(record.gain for record in records)
    return {
        "submitted": len(records),
        **{str(end): ends[end] for end in End},
        "on_time_share": ends[End.ON_TIME] / len(records) if records else None,
        "gain": gain,
        "mean_gain": gain / len(records) if records else None,
        "accuracy": sum(record.correct or 0 for record in known) / known_inputs if known_inputs else None,
        "expected_accuracy": expected / inputs if inputs else None,
        "inputs": inputs,
        "exits": _counts(record.exit for record in answered),
        "cuts": _counts(record.cut for record in answered),
        "codecs": _counts(record.codec for record in answered if record.codec != UNCODED),
        "local_fallbacks": sum(record.local for record in answered),
        "reasons": _counts(record.reason for record in records if record.reason),
        "prediction_error": prediction_error(records),
        "median_duration_s": _median(measured_durations(answered)),
        "median_predicted_s": _median(predicted_durations(answered)),
    }


def _counts(values: Iterable[object]) -> dict[str, int]:
    return {str(value): count for value, count in sorted(Counter(values).items(), key=lambda kv: str(kv[0]))}


def measured_durations(records: Iterable[TaskRecord]) -> list[float]:
    """Seconds from arrival to finish."""
    finishes = ((record.measured.finish_s, record.arrival_s) for record in records)
    return [finish_s - arrival_s for finish_s, arrival_s in finishes if finish_s is not None]


def predicted_durations(records: Iterable[TaskRecord]) -> list[float]:
    """Seconds from arrival to finish as they were predicted."""
    return [
        record.predicted.finish_s - record.arrival_s
        for record in records
        if record.predicted is not None and record.predicted.finish_s is not None
    ]


def prediction_error(records: Iterable[TaskRecord]) -> dict[str, float] | None:
    """Median, 95th percentile and bias of the relative error of predicted durations; None if there is none."""
    planned = [record for record in records if record.answered and not record.local and record.predicted]
    if not planned:
        return None
    predicted, measured = np.array(predicted_durations(planned)), np.array(measured_durations(planned))
    error = (measured - predicted) / predicted
    return {
        "median": float(np.median(np.abs(error))),
        "p95": float(np.quantile(np.abs(error), 0.95)),
        "bias": float(np.median(error)),
        "tasks": len(planned),
    }


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None
