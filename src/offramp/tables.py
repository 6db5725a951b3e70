"""Measured tables in place of lines, for layers whose time is no line in the number of inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from offramp import equations
from offramp.equations import FloatArray

Side = Literal["device", "edge"]
LINEAR_WITHIN = 0.08
"""A median is on a line if it is this close to it, relative."""
OFF_THE_LINE = 0.1
"""Share of the sizes at which a layer that counts as linear may be off its line: fits bear with as many, too."""


@dataclass(frozen=True, slots=True)
class LayerTable:
    """Seconds of one layer at measured sizes, in place of its slope and intercept.

    Attributes:
        side: where it runs.
        layer: 1..l.
        points: two or more pairs of size and seconds; sizes (>= 1) ascend, seconds (>= 0) do not fall.
    """

    side: Side
    layer: int
    points: tuple[tuple[int, float], ...]

    def seconds_at(self, size: float) -> float:
        """Straight between neighbouring sizes; before the first and after the last their slope goes on, down to 0."""
        following = next((i for i, (known, _) in enumerate(self.points) if size <= known), len(self.points))
        after = min(max(following, 1), len(self.points) - 1)
        (left, low_s), (right, high_s) = self.points[after - 1 : after + 1]
        if size == left:
            return low_s
        if size == right:
            return high_s
        seconds = low_s + (high_s - low_s) * ((size - left) / (right - left))
        # Rounding must not let a time between two sizes pass the one at the larger.
        return max(0.0, seconds if size > right else min(seconds, high_s))

    def scaled(self, factor: float) -> LayerTable:
        """The same where everything takes `factor` (>= 0) times as long."""
        return replace(self, points=tuple((size, factor * seconds) for size, seconds in self.points))

    def with_line(self, line: tuple[float, float]) -> LayerTable:
        """The same with what a line (slope, intercept >= 0) predicts on top."""
        return replace(
            self, points=tuple((size, seconds + _on_line(line, size)) for size, seconds in self.points)
        )


def _on_line(line: tuple[float, float], size: float) -> float:
    return float(equations.linear(np.array([line]), size)[0])


def layer_durations(lines: FloatArray, tables: Sequence[LayerTable], side: Side, size: float) -> FloatArray:
    """Seconds of each layer on one side, shape (l,): from its table if it has one, else from its line (l, 2)."""
    seconds = equations.linear(lines, size)
    for table in tables:
        if table.side == side:
            seconds[table.layer - 1] = table.seconds_at(size)
    return seconds


def is_linear(line: tuple[float, float], sizes: FloatArray, medians_s: FloatArray) -> bool:
    """Whether a line predicts these medians (> 0), within `LINEAR_WITHIN` at all but `OFF_THE_LINE` of the sizes."""
    predicted_s = np.array([_on_line(line, size) for size in sizes])
    off = np.abs(medians_s / predicted_s - 1.0) > LINEAR_WITHIN
    return int(np.sum(off)) <= OFF_THE_LINE * len(sizes)


def rising(medians_s: FloatArray) -> tuple[float, ...]:
    """The medians where they do not fall with the size, else what is nearest to them and does not.

    Isotonic regression for absolute deviations by its minimax formula: max over j <= i of the min over k >= i of the
    median of numbers j..k (Robertson, Wright and Dykstra, Order Restricted Statistical Inference).
    """
    count = len(medians_s)
    return tuple(
        max(min(float(np.median(medians_s[j : k + 1])) for k in range(i, count)) for j in range(i + 1))
        for i in range(count)
    )
