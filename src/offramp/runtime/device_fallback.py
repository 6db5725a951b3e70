"""How a device ends its tasks without its edge: which exit, and how late that may turn out to be."""

from __future__ import annotations

from collections.abc import Iterable

from offramp.equations import on_time
from offramp.runtime.device_alone import ALONE, Outlook, Quickest
from offramp.runtime.device_job import Job, Plan
from offramp.runtime.margin import Margin
from offramp.task import Task


class Fallback:
    """Plans for tasks that the device finishes itself: first as quickly as can be, then as deep as time allows."""

    def __init__(self) -> None:
        self._lateness = Margin(*ALONE)
        self._outlook = Outlook()

    def arrived(self, task: Task, quickest: Quickest) -> None:
        """A task has arrived, which the device alone would end soonest like this."""
        self._outlook.arrived(task.arrival_s, task.budget_s, quickest.takes_s, quickest.gain)

    def took(self, planned_s: float, measured_s: float) -> None:
        """A computation that was planned here is over."""
        self._lateness.finished(planned_s, measured_s)

    def soonest(self, job: Job, free_s: float) -> Plan | None:
        """The quickest way to finish a task if the processor is free at `free_s`; None if that is too late."""
        quickest = job.alone().quickest
        plan = job.plan_alone(quickest.row, quickest.takes_s, free_s)
        return plan if on_time(plan.finish_s, job.task.deadline_s) else None

    def deepest(self, job: Job, waiting: Iterable[Job], now_s: float) -> Plan | None:
        """The way to finish a task that begins now: the greatest gain, less what those behind and those to come lose.

        None if none is in time any more.
        """
        ways = job.alone()
        planned_s = ways.takes_s * (1.0 + self._lateness.share)
        claims = [each.claim() for each in waiting]
        chosen = self._outlook.choose(ways, planned_s, job.task.deadline_s, claims, now_s)
        if chosen is None:
            return None
        return job.plan_alone(int(ways.rows[chosen]), float(ways.takes_s[chosen]), now_s)
