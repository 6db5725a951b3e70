"""When a device sends a few bytes of nothing, so that its edge knows how the link is."""

from __future__ import annotations

import math

from offramp.link_estimate import PROBE_S

BUSY_S = 5.0
"""How long after its last task a device still probes its link."""


class Probes:
    """Probes over a link that has long carried nothing, while there are tasks; none unless `wanted`.

    Attributes:
        under_way: whether one is crossing.
    """

    def __init__(self, *, wanted: bool) -> None:
        self._wanted = wanted
        self.under_way = False
        self._idle_since_s = -math.inf
        self._until_s = -math.inf

    def task(self, now_s: float) -> None:
        """There is a task."""
        self._until_s = now_s + BUSY_S

    def carried(self, now_s: float) -> None:
        """The link has carried an upload or a probe."""
        self.under_way, self._idle_since_s = False, now_s

    def due_s(self, *, idle: bool) -> float:
        """When the next is due, if the link is `idle`; infinity if none is."""
        if not self._wanted or not idle or self.under_way:
            return math.inf
        due_s = self._idle_since_s + PROBE_S
        return due_s if due_s <= self._until_s else math.inf
