"""What waits for a device's processor and for its link, and when both will be free of it."""

from __future__ import annotations

import math
from collections import deque

from offramp.equations import on_time
from offramp.runtime.device_job import Job


class DeviceQueue:
    """One head at a time and one upload at a time, each in the order in which they were handed over.

    Attributes:
        heads, uploads: what waits.
        computing, uploading: what is under way; None if nothing is.
        compute_start_s, link_until_s: when the one began, and when the other will have crossed.
    """

    def __init__(self, link_delay_s: float) -> None:
        self._link_delay_s = link_delay_s
        self.heads: deque[Job] = deque()
        self.uploads: deque[Job] = deque()
        self.computing: Job | None = None
        self.compute_start_s = 0.0
        self.uploading: Job | None = None
        self.link_until_s = -math.inf

    def backlog(self, now_s: float) -> tuple[float, float]:
        """When the device could start another head, and its link another upload after it, if nothing changes."""
        device_s, link_s = now_s, now_s
        if self.uploading is not None:
            link_s = max(link_s, self.link_until_s)
        for job in self.uploads:
            link_s = self._link_after(job, now_s, link_s)
        if self.computing is not None:
            device_s = max(now_s, self.compute_start_s + self.computing.head_s)
            link_s = self._link_after(self.computing, device_s, link_s)
        for job in self.heads:
            device_s += job.head_s
            link_s = self._link_after(job, device_s, link_s)
        return device_s, link_s

    def _link_after(self, job: Job, send_s: float, link_s: float) -> float:
        """When the link is free of a task that reaches it at `send_s`."""
        sent_s = max(send_s, link_s) + job.upload_s
        return link_s if job.local or self.hopeless(job, sent_s) else sent_s

    def hopeless(self, job: Job, sent_s: float) -> bool:
        """Whether an upload that has crossed at `sent_s` reaches the edge when it is too late to start there."""
        return not on_time(sent_s + self._link_delay_s, job.task.deadline_s)

    def leave(self, job: Job) -> None:
        """A task waits for nothing any more."""
        for waiting in (self.heads, self.uploads):
            if job in waiting:
                waiting.remove(job)
