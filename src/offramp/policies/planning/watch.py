"""When to learn the traffic anew: while it is unknown, and when the stream departs from what it was taken to be."""

from __future__ import annotations

import numpy as np

from offramp.observation import Backlog, Observation, Timing
from offramp.options import System
from offramp.policies.planning.seen import SeenTasks, expected_of
from offramp.policies.planning.traffic import Traffic
from offramp.task import Task

FIRST_LESSON = 10
"""Tasks that must be seen before traffic is estimated from them."""
LAST_LESSON = 160
"""Estimates are made again at twice the count of the last time, up to this count."""
CHECK_EVERY = 16
"""Tasks between two looks at whether the stream still is what it was taken to be."""


class TrafficWatch:
    """Counts tasks. `traffic` is what the stream is taken to be: the scenario's, an estimate, or None so far.

    What it does depends on the tasks alone, so the same stream gives the same estimates at the same tasks. With
    `adapt` false what is once taken for the traffic stays it.
    """

    def __init__(self, system: System, traffic: Traffic | None, *, adapt: bool = True) -> None:
        self._adapt = adapt
        self._take(traffic)
        self._seen = SeenTasks(system)
        self._until_look = CHECK_EVERY
        self._lesson = 0 if traffic is not None else FIRST_LESSON

    def add(self, task: Task) -> None:
        """Remember a task."""
        self._seen.add(task)
        self._until_look -= 1

    def news(self) -> Traffic | None:
        """An estimate to use from now on, where one is due; it becomes `traffic`."""
        if self._lesson and len(self._seen) >= self._lesson:
            again = self._adapt and 2 * self._lesson <= LAST_LESSON
            self._lesson = 2 * self._lesson if again else 0
            return self._estimate()
        if self._expected is None or self._until_look > 0:
            return None
        self._until_look = CHECK_EVERY
        departed = self._seen.departs_from(self._expected)
        if departed is None:
            return None
        self._seen.keep_last(departed)
        self._lesson = 2 * departed
        return self._estimate()

    def _estimate(self) -> Traffic | None:
        traffic = self._seen.traffic()
        if traffic is not None:
            self._take(traffic)
        return traffic

    def _take(self, traffic: Traffic | None) -> None:
        self.traffic = traffic
        self._expected = None if traffic is None or not self._adapt else expected_of(traffic)


def idle_observation(system: System, timing: Timing, *, size: int, budget_s: float) -> Observation:
    """A task at the first device of an idle system: what a policy rehearses with before the first real one."""
    idle_s = np.full(system.devices, -np.inf)
    backlog = Backlog(idle_s, idle_s, np.empty(0), np.full(1, -np.inf))
    task = Task(0.0, size, budget_s, 0)
    return Observation(task, 0.0, system.options(0, size), backlog, timing, system.network)
