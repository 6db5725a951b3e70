"""Lines through measured times that a few odd measurements do not move."""

from __future__ import annotations

import itertools

import numpy as np

from offramp.equations import FloatArray


def fit_line(
    sizes: FloatArray, seconds: FloatArray, weights: FloatArray | None = None
) -> tuple[float, float]:
    """Slope and intercept, both >= 0, with the least sum of absolute relative deviations from `seconds` (> 0).

    Such a line passes through two of the points, or through one of them with slope or intercept 0, so all
    of these are tried: exact, and one wild point of ten does not move it. Ties go to the least intercept.
    A point counts as often as `weights` says, once without.
    """
    weights = np.ones(len(sizes)) if weights is None else weights
    lines = [(float(y / x), 0.0) for x, y in zip(sizes, seconds, strict=True)]
    lines += [(0.0, float(y)) for y in seconds]
    for i, j in itertools.combinations(range(len(sizes)), 2):
        if sizes[i] == sizes[j]:
            continue
        slope = (seconds[j] - seconds[i]) / (sizes[j] - sizes[i])
        intercept = seconds[i] - slope * sizes[i]
        if slope >= 0 and intercept >= 0:
            lines.append((float(slope), float(intercept)))
    return min(lines, key=lambda line: (_deviation(line, sizes, seconds, weights), line[1]))


def _deviation(
    line: tuple[float, float], sizes: FloatArray, seconds: FloatArray, weights: FloatArray
) -> float:
    return float(np.sum(weights * np.abs(line[0] * sizes + line[1] - seconds) / seconds))


def r_squared(line: tuple[float, float], sizes: FloatArray, seconds: FloatArray) -> float:
    """Share of the variance of `seconds` that the line explains; 1 if there is none to explain."""
    spread = float(np.sum((seconds - seconds.mean()) ** 2))
    left = float(np.sum((line[0] * sizes + line[1] - seconds) ** 2))
    return 1.0 if spread == 0 else 1.0 - left / spread
