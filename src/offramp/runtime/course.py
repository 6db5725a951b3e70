"""How fast a run's devices and edge were from moment to moment, and what chance left beside that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from offramp.equations import FloatArray

if TYPE_CHECKING:
    from offramp.runtime.measured_terms import MeasuredTerms

WINDOW = 9
"""Computations, in a row, whose median says how fast a processor was among them."""
LEAST = 0.1
"""No computation is taken to be faster than this share of what it should take."""


@dataclass(frozen=True, slots=True)
class Course:
    """What computations took over what they should have taken: `ratios` at `instants_s`, which ascend."""

    instants_s: tuple[float, ...]
    ratios: tuple[float, ...]

    def quantile(self, share: float) -> float | None:
        """The ratio that this share of the computations stays below; None without any."""
        return float(np.quantile(self.ratios, share)) if self.ratios else None

    def running(self) -> FloatArray:
        """About each computation the median of `WINDOW`; of fewer at both ends."""
        reach = WINDOW // 2
        ratios = np.array(self.ratios)
        return np.array(
            [np.median(ratios[max(0, place - reach) : place + reach + 1]) for place in range(len(ratios))]
        )


def course_of(instants_s: FloatArray, ratios: FloatArray, factor: float | None) -> Course:
    """The course of computations whose measured over declared durations are `ratios`, `factor` of them usual."""
    if factor is None:
        return Course((), ())
    order = np.argsort(instants_s, kind="stable")
    found = np.maximum(ratios / factor, LEAST)[order]
    return Course(tuple(instants_s[order].tolist()), tuple(found.tolist()))


class Followed:
    """A `Spread` that has everything computed as fast as the run did about the same instant."""

    def __init__(self, terms: MeasuredTerms) -> None:
        self._heads = [_Line(course) for course in terms.heads]
        self._tails = _Line(terms.tails)

    def head(self, device: int, now_s: float) -> float:
        """See `Spread`."""
        return self._heads[device].at(now_s)

    def tail(self, now_s: float) -> float:
        """See `Spread`."""
        return self._tails.at(now_s)


class Resampled:
    """A `Spread` that follows the run likewise, and goes through what chance left beside that from a drawn place on."""

    def __init__(self, terms: MeasuredTerms, rng: np.random.Generator) -> None:
        self._followed = Followed(terms)
        self._heads = [_from_anywhere(course, rng) for course in terms.heads]
        self._tails = _from_anywhere(terms.tails, rng)

    def head(self, device: int, now_s: float) -> float:
        """See `Spread`."""
        return self._followed.head(device, now_s) * next(self._heads[device])

    def tail(self, now_s: float) -> float:
        """See `Spread`."""
        return self._followed.tail(now_s) * next(self._tails)


class _Line:
    """The running median of a course between its computations; 1 without any."""

    def __init__(self, course: Course) -> None:
        self._instants_s, self._running = np.array(course.instants_s), course.running()

    def at(self, now_s: float) -> float:
        if not len(self._running):
            return 1.0
        return float(np.interp(now_s, self._instants_s, self._running))


def _from_anywhere(course: Course, rng: np.random.Generator) -> Iterator[float]:
    left = (np.array(course.ratios) / course.running()).tolist() or [1.0]
    start = int(rng.integers(len(left)))
    return cycle((*left[start:], *left[:start]))
