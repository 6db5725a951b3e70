"""What is believed of an uplink: estimated from the uploads that came, or assumed.

Pure arithmetic on instants that are passed in; the simulator and the edge use the same objects.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import deque
from dataclasses import dataclass, field
from itertools import combinations
from statistics import median
from typing import NamedTuple, Protocol

import numpy as np

from offramp.equations import FloatArray

STEPS_PER_OCTAVE = 48
"""Rates are rounded to so many steps for each doubling of the declared one, so that option tables can be kept."""
MEMORY = 64
"""Uploads that are remembered."""
RECENT_S = 1.0
"""Time after which an upload says only 1/e as much of the link's present as a new one."""
TYPICAL = 0.05
"""Weight of an upload in the link's typical rate, towards which an old estimate goes."""
PRIOR_WEIGHT = 0.5
"""What the typical rate counts for beside the recent uploads, in fresh uploads."""
QUANTILE = 0.25
"""Share of the uploads that may turn out slower than the rate that is given out."""
CAUTION = (-1.0, -2.0)
"""Errors, in logarithms, that a link is granted before it has shown its own, unless it is said to be steady."""
ENOUGH, BROKEN = 8, 0.25
"""After so many uploads a link that is said to be steady is judged by its errors all the same, if the typical one
falls so far short of the promise, in logarithms. Less is what a busy machine does to clocks: judged by the promise and
not by the level, or the milliseconds that it adds to each upload would make a fast link a slow one."""
GRAIN_S = 0.01
"""Differences of durations below this say little: packets go out when the link has a place for them."""
OVERDUE = 2.0
"""An upload that is overdue is taken to last so many times as long as it has been under way."""
PROBE_S = 0.5
"""A link that has carried nothing for so long carries a probe: only bytes can tell how it is, or has become."""
FIRST_PROBES = 8
"""Nothing is known of a link that is new: so many probes come in quick succession, each gap twice the last, up to
`PROBE_S`. One declared too slow would else be avoided for seconds."""
JOINED_S = 2.0
"""How long a device has been joined before its stream begins, where the stream's start is ours to set."""
PROBE_LENGTH_S = 0.02
"""How long a probe takes at the rate that is believed, if that is more than `PROBE_BYTES`."""
PROBE_BYTES, LONGEST_PROBE_BYTES = 1500.0, 65_536.0
DELAY_UPLOADS, DELAY_FIT = 12, 0.05
"""Bandwidth and delay are told apart by the latest uploads if one line is, in the median, this close to them."""


class Pending(NamedTuple):
    """The upload that is under way: its bytes and how long it has been, seconds. Both 0 if there is none."""

    size_bytes: float = 0.0
    elapsed_s: float = 0.0


NOTHING_PENDING = Pending()


class Belief(Protocol):
    """What decisions take an uplink to be."""

    @property
    def delay_s(self) -> float:
        """One-way delay beside the time on the wire, seconds."""
        ...

    def probe_gap_s(self, carried: int) -> float:
        """How long a link that has carried so many uploads and probes may be idle; infinite if it needs no probes."""
        ...

    def seen(self, size_bytes: float, duration_s: float, now_s: float) -> None:
        """An upload has come that took `duration_s` from its begin until it was there."""
        ...

    def rate(self, now_s: float, pending: Pending = NOTHING_PENDING) -> float:
        """Bytes per second to plan an upload with, > 0."""
        ...

    @property
    def certain(self) -> bool:
        """Whether uploads are held to take exactly what `rate` says, so that there are no chances to weigh."""
        ...

    def chance(self, slack: FloatArray) -> FloatArray | None:
        """Probability that an upload needs at most `slack` times what `rate` says; None if that is certain."""
        ...


@dataclass(frozen=True, slots=True)
class Assumed:
    """A link that is taken to be the same all the time, whatever is seen of it."""

    bandwidth_bytes_per_s: float
    delay_s: float = 0.0

    def probe_gap_s(self, carried: int) -> float:
        """See `Belief`."""
        return math.inf

    def seen(self, size_bytes: float, duration_s: float, now_s: float) -> None:
        """See `Belief`. Changes nothing."""

    def rate(self, now_s: float, pending: Pending = NOTHING_PENDING) -> float:
        """See `Belief`."""
        return self.bandwidth_bytes_per_s

    @property
    def certain(self) -> bool:
        """See `Belief`."""
        return True

    def chance(self, slack: FloatArray) -> FloatArray | None:
        """See `Belief`."""
        return None


@dataclass(slots=True)
class LinkEstimator:
    """Follows a link by its uploads.

    The level is a mean of recent rates, taken in logarithms and weighted by age, that goes back to the link's
    typical rate as the uploads grow old. What each upload missed the level by is remembered: the rate to plan with
    is the level lowered by a quantile of these errors, so that a steady link is believed to the full and a
    capricious one is not, and `chance` is their distribution. An upload that should have come by now caps the rate.

    Attributes:
        bandwidth_bytes_per_s, delay_s: what to believe before there is an upload, > 0 and >= 0.
        steady: whether that is a promise, which is believed until uploads break it.
    """

    bandwidth_bytes_per_s: float
    delay_s: float = 0.0
    steady: bool = False
    _uploads: deque[tuple[float, float]] = field(init=False)
    _rates: deque[tuple[float, float]] = field(init=False)
    _errors: deque[float] = field(init=False)
    _ranked: list[float] = field(init=False)
    _typical: float = field(init=False)
    _kept: float = field(default=0.0, init=False)
    _count: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._uploads = deque(maxlen=DELAY_UPLOADS)
        self._rates = deque(maxlen=MEMORY)
        self._errors = deque(() if self.steady else CAUTION)
        self._ranked = sorted(self._errors)
        self._typical = math.log(self.bandwidth_bytes_per_s)

    def probe_gap_s(self, carried: int) -> float:
        """See `Belief`."""
        return probe_gap_s(carried, steady=self.steady)

    def seen(self, size_bytes: float, duration_s: float, now_s: float) -> None:
        """See `Belief`. An upload without bytes says nothing."""
        if not (size_bytes > 0 and duration_s < math.inf):
            return
        duration_s = max(0.0, duration_s)
        level = self._level(now_s - duration_s)
        crossing_s = max(0.0, duration_s - self.delay_s)
        error = _error(size_bytes * math.exp(-level), crossing_s)
        self._remember(error)
        self._count += 1
        broken = _error(size_bytes / self.bandwidth_bytes_per_s, crossing_s)
        self._kept += max(TYPICAL, 1.0 / self._count) * (broken - self._kept)
        # The first uploads count for more: the declared rate may be far off.
        self._typical += max(TYPICAL, 1.0 / self._count) * (level + error - self._typical)
        self._rates.append((now_s, level + error))
        self._uploads.append((size_bytes, duration_s))
        if not self.steady:
            self._tell_delay()

    def rate(self, now_s: float, pending: Pending = NOTHING_PENDING) -> float:
        """See `Belief`; rounded to a step."""
        declared = math.log(self.bandwidth_bytes_per_s)
        log_rate = declared if self.certain else self._level(now_s) + self._shortfall()
        crossing_s = pending.elapsed_s - self.delay_s
        due_s = pending.size_bytes * math.exp(-log_rate) * (OVERDUE if self.certain else 1.0) + GRAIN_S
        if pending.size_bytes > 0 and crossing_s > due_s:
            log_rate = math.log(pending.size_bytes / (OVERDUE * crossing_s))
        step = round((log_rate - declared) / math.log(2.0) * STEPS_PER_OCTAVE)
        return float(self.bandwidth_bytes_per_s * 2.0 ** (step / STEPS_PER_OCTAVE))

    def chance(self, slack: FloatArray) -> FloatArray | None:
        """See `Belief`: the share of the remembered errors that such a slack makes good."""
        if self.certain:
            return None
        ranked = np.array(self._ranked)
        with np.errstate(divide="ignore"):
            least = self._shortfall() - np.log(np.maximum(slack, 0.0))
        # Half a step of rounding must not make a steady link look uncertain.
        short = np.searchsorted(ranked, least - math.log(2.0) / STEPS_PER_OCTAVE)
        share: FloatArray = 1.0 - short / len(ranked)
        return share

    @property
    def certain(self) -> bool:
        """See `Belief`: as long as a promise to be steady is believed."""
        return self.steady and (self._count < ENOUGH or self._kept >= -BROKEN)

    def _shortfall(self) -> float:
        """What the rate to plan with leaves off, <= 0: a quantile of the errors."""
        return min(0.0, self._ranked[int(QUANTILE * len(self._ranked))])

    def _level(self, now_s: float) -> float:
        """Logarithm of the rate that is expected now."""
        total, weights = PRIOR_WEIGHT * self._typical, PRIOR_WEIGHT
        for at_s, log_rate in self._rates:
            weight = math.exp(min(0.0, at_s - now_s) / RECENT_S)
            total += weight * log_rate
            weights += weight
        return total / weights

    def _remember(self, error: float) -> None:
        if len(self._errors) == MEMORY:
            self._ranked.remove(self._errors.popleft())
        self._errors.append(error)
        insort(self._ranked, error)

    def _tell_delay(self) -> None:
        """Set the delay where one line through bytes and durations explains the uploads (Theil and Sen's)."""
        slopes = [
            (later_s - earlier_s) / (more - fewer)
            for (fewer, earlier_s), (more, later_s) in combinations(self._uploads, 2)
            if abs(more - fewer) > 0.2 * max(fewer, more)
        ]
        if len(slopes) < DELAY_UPLOADS or (slope := median(slopes)) <= 0:
            return
        delay_s = median(duration_s - slope * size_bytes for size_bytes, duration_s in self._uploads)
        delay_s = min(max(delay_s, 0.0), min(duration_s for _, duration_s in self._uploads))
        off = median(abs(delay_s + slope * size - took_s) for size, took_s in self._uploads)
        if off <= DELAY_FIT * median(duration_s for _, duration_s in self._uploads):
            self.delay_s = delay_s


def _error(expected_s: float, crossing_s: float) -> float:
    """How much faster than expected an upload was, in logarithms; small differences of durations count for little."""
    return math.log((expected_s + GRAIN_S) / (crossing_s + GRAIN_S))


def probe_gap_s(carried: int, *, steady: bool) -> float:
    """How long a link may be idle when it has carried so many uploads and probes, seconds.

    One that is said to be `steady` needs no first probes in quick succession.
    """
    return PROBE_S if steady else PROBE_S * 2.0 ** min(0, carried - FIRST_PROBES)


def probe_bytes(rate: float) -> float:
    """Size of a probe over a link that is believed to carry `rate` bytes per second."""
    return min(max(PROBE_BYTES, PROBE_LENGTH_S * rate), LONGEST_PROBE_BYTES)
