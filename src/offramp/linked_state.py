"""The timing model `network` over links that are not what decisions take them to be."""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from offramp import equations
from offramp.edge_queue import EdgeJob
from offramp.link import Link, TraceLink
from offramp.link_estimate import (
    JOINED_S,
    NOTHING_PENDING,
    Assumed,
    Belief,
    LinkEstimator,
    Pending,
    probe_bytes,
)
from offramp.observation import Backlog, Observation
from offramp.options import System
from offramp.schedule import ScheduledTask
from offramp.state import NetworkState
from offramp.task import Task


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """Recorded links under a simulation, and what decisions take them to be.

    Attributes:
        recording: what every device's link replays, each device from another place: device d of N starts d/N of
            the recording later than the first, and at the end it starts over.
        start_s: where in the recording the first device's link is at instant 0, seconds.
        assumed: bytes per second that are taken for granted; None to estimate from the uploads, beginning with
            what the system says of each link.
    """

    recording: TraceLink
    start_s: float = 0.0
    assumed: float | None = None

    def links(self, system: System) -> list[TraceLink]:
        """A link for each of the system's devices."""
        length_s = float(self.recording.instants_ms[-1]) / 1000.0
        starts_s = [self.start_s + number * length_s / system.devices for number in range(system.devices)]
        # They have been running since before the stream: a device may be anywhere in the recording.
        before_s = length_s * math.ceil(JOINED_S / length_s)
        return [
            TraceLink(self.recording.instants_ms, system.network.link_delay_s, -before_s - start_s % length_s)
            for start_s in starts_s
        ]

    def state(self, system: System) -> LinkedState:
        """The idle system on these links."""
        delay_s = system.network.link_delay_s
        beliefs: list[Belief] = [
            LinkEstimator(declared, delay_s) if self.assumed is None else Assumed(self.assumed, delay_s)
            for declared in system.bandwidth_bytes_per_s
        ]
        return LinkedState(system, self.links(system), beliefs)


@dataclass(frozen=True, slots=True)
class Upload:
    """What a task is to upload: when its head is done, its bytes, and what the edge then has to do."""

    ready_s: float
    size_bytes: float
    job: EdgeJob


@dataclass(slots=True)
class Uplink:
    """One device's link, what is believed of it, and the uploads that it has yet to carry.

    An upload that, by what the device believes, could only arrive after its deadline is not started; one that has
    been started is carried to its end. The device hears what the edge believes with each decision. It has joined
    `JOINED_S` before the stream, and its link has carried probes since.
    """

    link: Link
    belief: Belief
    rate: float = field(init=False)
    waiting: deque[Upload] = field(default_factory=deque, init=False)
    _free_s: float = field(default=-np.inf, init=False)
    _carried: int = field(default=0, init=False)
    _last: tuple[float, float] = field(default=(0.0, 0.0), init=False)
    _flying: deque[tuple[float, float, float]] = field(default_factory=deque, init=False)

    def __post_init__(self) -> None:
        self.rate = self.belief.rate(-np.inf)

    def carry(self, until_s: float) -> list[tuple[Upload, float | None]]:
        """Start what starts by then: (upload, instant at which it reaches the edge; None if it is not started)."""
        started: list[tuple[Upload, float | None]] = []
        while self.waiting:
            upload = self.waiting[0]
            self._probe(min(upload.ready_s, until_s))
            start_s = max(upload.ready_s, self._free_s)
            if start_s > until_s:
                break
            self.waiting.popleft()
            if self._hopeless(upload, start_s):
                started.append((upload, None))
                continue
            started.append((upload, self._carry(start_s, upload.size_bytes)))
        self._probe(until_s)
        return started

    def _probe(self, until_s: float) -> None:
        """While the link is idle until then, let it carry probes."""
        if until_s == np.inf:
            return
        idle_s = max(self._free_s, -JOINED_S)
        while (begin_s := idle_s + self.belief.probe_gap_s(self._carried)) <= until_s:
            self._carry(begin_s, probe_bytes(self.rate))
            idle_s = self._free_s

    def _carry(self, start_s: float, size_bytes: float) -> float:
        self._free_s = self.link.carry(start_s, size_bytes)
        self._carried += 1
        self._last = (start_s, size_bytes)
        arrival_s = self._free_s + self.link.delay_s
        self._flying.append((arrival_s, size_bytes, arrival_s - start_s))
        return arrival_s

    def learn(self, now_s: float) -> None:
        """Take in the uploads that have reached the edge, and believe anew."""
        while self._flying and self._flying[0][0] <= now_s:
            arrival_s, size_bytes, duration_s = self._flying.popleft()
            self.belief.seen(size_bytes, duration_s, arrival_s)
        pending = NOTHING_PENDING
        if self._free_s > now_s:
            began_s, size_bytes = self._last
            pending = Pending(size_bytes, now_s - began_s)
        self.rate = self.belief.rate(now_s, pending)

    def free_s(self, now_s: float) -> float:
        """When, by what is believed, the link has carried everything that it is to carry."""
        free_s = self._free_s
        if free_s > now_s:
            began_s, size_bytes = self._last
            free_s = max(now_s, began_s + size_bytes / self.rate)
        for upload in self.waiting:
            start_s = max(upload.ready_s, free_s)
            if not self._hopeless(upload, start_s):
                free_s = start_s + upload.size_bytes / self.rate
        return free_s

    def _hopeless(self, upload: Upload, start_s: float) -> bool:
        there_s = start_s + upload.size_bytes / self.rate + self.belief.delay_s
        return not equations.on_time(there_s, upload.job.deadline_s)


class LinkedState(NetworkState):
    """`NetworkState` with real links: what happens follows them, what is shown follows what is believed of them.

    With links of a constant rate that is also believed it is `NetworkState`.
    """

    def __init__(self, system: System, links: Sequence[Link], beliefs: Sequence[Belief]) -> None:
        super().__init__(system)
        self._uplinks = [Uplink(link, belief) for link, belief in zip(links, beliefs, strict=True)]
        self._expected: dict[int, EdgeJob] = {}

    def observe(self, task: Task) -> Observation:
        """See `State`."""
        now_s = task.arrival_s
        self._run_links(now_s)
        self._run_edge(now_s)
        uplink = self._uplinks[task.device]
        uplink.learn(now_s)
        self._link_free_s[task.device] = uplink.free_s(now_s)
        for number, job in list(self._expected.items()):
            if job.arrival_s < now_s:
                self._expected[number] = dataclasses.replace(job, arrival_s=now_s)
        queue = self._queue.with_jobs([*self._queue.here(now_s), *self._expected.values()])
        backlog = Backlog(self._device_free_s.copy(), self._link_free_s.copy(), *queue.forecast())
        options = self._system.options_at(task.device, task.size, uplink.rate)
        network = dataclasses.replace(self._system.network, link_delay_s=uplink.belief.delay_s)
        return Observation(task, now_s, options, backlog, "network", network).weighed(uplink.belief)

    def _upload(self, job: EdgeJob, row: int, ready_s: float, sent_s: float) -> None:
        """See `NetworkState`; `sent_s` is what is believed, and what crosses follows the link."""
        task = self._tasks[job.order]
        size_bytes = float(self._system.crossing_bytes(task.size)[row])
        upload = Upload(ready_s, size_bytes, job)
        self._uplinks[task.device].waiting.append(upload)
        if equations.on_time(job.arrival_s, job.deadline_s):
            self._link_free_s[task.device] = sent_s
            self._expected[job.order] = job

    def rows(self) -> list[ScheduledTask]:
        """See `State`."""
        self._run_links(np.inf)
        return super().rows()

    def _run_links(self, now_s: float) -> None:
        for uplink in self._uplinks:
            for upload, arrival_s in uplink.carry(now_s):
                if arrival_s is None:
                    self._expected.pop(upload.job.order, None)
                else:
                    self._queue.add(dataclasses.replace(upload.job, arrival_s=arrival_s))
        for number in [job.order for job in self._queue.here(now_s)]:
            self._expected.pop(number, None)
