"""A device's uplink as the edge sees it: what is on its way, and what came and how long it took."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from offramp import equations
from offramp.link_estimate import NOTHING_PENDING, LinkEstimator, Pending

MOST_OUTSTANDING = 64
"""Beginnings that are remembered; a device has one upload under way at a time."""


class _Begun(NamedTuple):
    number: int
    size_bytes: float
    began_s: float


class LinkView:
    """Matches the beginnings of uploads with their arrivals, both counted from the session's start.

    They come on two connections, each in order, so an arrival may be seen before its beginning; it is then no
    measurement. What arrivals say is worked out when it is asked for: a task that is here should not wait for that.
    """

    def __init__(self, belief: LinkEstimator) -> None:
        self.belief = belief
        self.bandwidth_bytes_per_s = belief.bandwidth_bytes_per_s
        self._begun: deque[_Begun] = deque(maxlen=MOST_OUTSTANDING)
        self._begins = 0
        self._arrivals = 0
        self._measured: list[tuple[float, float, float]] = []

    def begins(self, size_bytes: float, began_s: float) -> None:
        """The device has begun an upload or a probe."""
        if self._begins >= self._arrivals:
            self._begun.append(_Begun(self._begins, size_bytes, began_s))
        self._begins += 1

    def arrives(self, now_s: float) -> None:
        """An upload or a probe is here."""
        while self._begun and self._begun[0].number <= self._arrivals:
            begun = self._begun.popleft()
            if begun.number == self._arrivals:
                self._measured.append((begun.size_bytes, now_s - begun.began_s, now_s))
        self._arrivals += 1
        if len(self._measured) == MOST_OUTSTANDING:
            self._work_out()

    def _work_out(self) -> None:
        for measured in self._measured:
            self.belief.seen(*measured)
        self._measured.clear()

    def believe(self, now_s: float) -> float:
        """Bytes per second to plan with now; kept as `bandwidth_bytes_per_s`."""
        self._work_out()
        pending = NOTHING_PENDING
        if self._begun:
            begun = self._begun[0]
            pending = Pending(begun.size_bytes, now_s - begun.began_s)
        self.bandwidth_bytes_per_s = self.belief.rate(now_s, pending)
        return self.bandwidth_bytes_per_s

    def free_s(self, now_s: float) -> float:
        """When what is under way should have crossed, by what is believed; `now_s` if nothing is."""
        if not self._begun:
            return now_s
        begun = self._begun[0]
        return max(
            now_s, begun.began_s + equations.upload_duration(begun.size_bytes, self.bandwidth_bytes_per_s)
        )
