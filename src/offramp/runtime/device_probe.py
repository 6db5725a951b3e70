"""When a device sends a few bytes of nothing, so that its edge knows how the link is."""

from __future__ import annotations

import math

from offramp.link_estimate import probe_gap_s

BUSY_S = 5.0
"""How long after its last task a device still probes its link."""


class Probes:
    """Probes over a link that has long carried nothing, while there are tasks; none if they are not `wanted`.

    An edge that has yet to learn how a link is gets the first ones in quick succession, unless the link is `steady`
    and the edge is told how fast.

    Attributes:
        under_way: whether one is crossing.
    """

    def __init__(self, *, steady: bool, wanted: bool = True) -> None:
        self._wanted = wanted
        self._steady = steady
        self._carried = 0
        self.under_way = False
        self._idle_since_s = -math.inf
        self._until_s = -math.inf

    def connected(self) -> None:
        """The edge is one that has seen nothing of this link."""
        self._carried = 0

    def expect_tasks(self, now_s: float) -> None:
        """There is a task, or will be soon."""
        self._until_s = now_s + BUSY_S

    def carried(self, now_s: float) -> None:
        """The link has carried an upload or a probe."""
        self.under_way, self._idle_since_s = False, now_s
        self._carried += 1

    def due_s(self, *, idle: bool) -> float:
        """When the next is due, if the link is `idle`; infinity if none is."""
        if not self._wanted or not idle or self.under_way:
            return math.inf
        due_s = self._idle_since_s + probe_gap_s(self._carried, steady=self._steady)
        return due_s if due_s <= self._until_s else math.inf
