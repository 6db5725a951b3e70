"""Means over seeds with their uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from offramp.errors import MissingExtraError


class Interval(NamedTuple):
    """A mean and the half-width of its confidence interval (NaN for fewer than two values)."""

    mean: float
    half_width: float


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Student's t interval for the mean of independent values; `confidence` in (0, 1)."""
    try:
        from scipy.stats import t
    except ModuleNotFoundError:
        raise MissingExtraError("scipy", "research") from None
    count = len(values)
    if count < 2:
        return Interval(float(np.mean(values)), float("nan"))
    spread = float(np.std(values, ddof=1)) / count**0.5
    return Interval(float(np.mean(values)), float(t.ppf(0.5 + confidence / 2, count - 1)) * spread)
