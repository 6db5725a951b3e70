"""How much of a budget to leave unplanned, learnt from how far predictions were off."""

from __future__ import annotations

from collections import deque

import numpy as np

WINDOW = 24
"""Finished tasks that are remembered."""
ENOUGH = 8
"""Below so many, what has been asked for at the start is left unplanned: nothing, or what a profile's residuals say."""
QUANTILE = 0.75
"""Share of tasks whose lateness the margin covers unless another is asked for."""
MOST = 0.3
"""Share of a budget that is left unplanned at most."""


class Margin:
    """A share of every budget that plans must leave free.

    A plan that just meets its deadline misses it about as often as not, and then all its work is for nothing.
    `confidence` is the share of tasks whose lateness the margin covers, `excess` by how much predictions may be
    exceeded as long as there are not tasks enough to tell.
    """

    def __init__(self, confidence: float = QUANTILE, excess: float = 0.0) -> None:
        self._confidence = confidence
        self._share = min(excess, MOST)
        self._excess: deque[float] = deque(maxlen=WINDOW)

    @property
    def share(self) -> float:
        """In 0..MOST."""
        return self._share

    def finished(self, predicted_s: float, measured_s: float) -> None:
        """A task took `measured_s` from its arrival, and was predicted to take `predicted_s`."""
        if predicted_s > 0:
            self._excess.append(measured_s / predicted_s - 1.0)
        if len(self._excess) >= ENOUGH:
            covered = np.quantile(np.array(self._excess), self._confidence, method="higher")
            self._share = float(np.clip(covered, 0.0, MOST))
