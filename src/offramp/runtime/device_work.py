"""Decided tasks on a device's way: processor, link, the edge's answer, or their end on the device alone."""

from __future__ import annotations

import math

from offramp.equations import on_time
from offramp.link_estimate import probe_bytes
from offramp.runtime.device_fallback import Fallback
from offramp.runtime.device_job import Action, Carry, Compute, Decided, Finished, Job, Say, SendProbe, Stage
from offramp.runtime.device_probe import Probes
from offramp.runtime.device_queue import DeviceQueue
from offramp.runtime.edge_view import EdgeView
from offramp.runtime.margin import Margin
from offramp.runtime.outcomes import End, Instants, Ledger
from offramp.runtime.own import OwnSystem
from offramp.runtime.protocol import Answer, Message, Withdraw

OVERDUE = 0.25
"""How far beyond its predicted duration an answer is overdue, as a share of that duration."""
LEAST_OVERDUE_S = 0.02


class DeviceWork:
    """What `DeviceCore` has decided, carried out. Every method takes the present instant.

    Attributes:
        jobs: every task that has not ended, by its sequence.
        edge: what is believed of the edge.
        actions: what is asked for, in order.
    """

    def __init__(
        self, own: OwnSystem, fallback: Fallback | None, probes: Probes, margin: Margin, ledger: Ledger
    ) -> None:
        self.jobs: dict[int, Job] = {}
        self.edge = EdgeView()
        self.actions: list[Action] = []
        self._own = own
        self._fallback = fallback
        self._probes = probes
        self._margin = margin
        self._ledger = ledger
        self._queue = DeviceQueue(own.link_delay_s)

    @property
    def idle(self) -> bool:
        """Whether every task has ended and the processor is free."""
        return not self.jobs and self._queue.computing is None

    @property
    def free(self) -> bool:
        """Whether there is no task, nor anything of one that has ended on the processor or the link."""
        on_link = self._queue.uploading is not None or self._probes.under_way
        return self.idle and not on_link

    def backlog(self, now_s: float) -> tuple[float, float]:
        """See `DeviceQueue.backlog`."""
        return self._queue.backlog(now_s)

    def enqueue(self, job: Job, now_s: float) -> None:
        """It is decided what a task is to do: let it wait for the processor."""
        self.actions.append(Decided(job.sequence, job.decision))
        job.stage, job.check_s = Stage.QUEUED, math.inf
        self._queue.heads.append(job)
        self._next_head(now_s)

    def _next_head(self, now_s: float) -> None:
        while self._queue.computing is None and self._queue.heads:
            job = self._queue.heads.popleft()
            if not on_time(now_s, job.task.deadline_s):
                if not job.local:
                    self.say(Withdraw(job.sequence))
                self.end(job, End.EXPIRED, "device-queue", now_s)
                continue
            if job.fallback and not self._deepen(job, now_s):
                self.end(job, End.EXPIRED, "device-queue", now_s)
                continue
            if job.device_start_s is None:
                job.device_start_s = now_s
            job.stage = Stage.COMPUTING
            self._queue.computing, self._queue.compute_start_s = job, now_s
            decision = job.decision
            self.actions.append(Compute(job.sequence, decision.exit, job.start, decision.cut, decision.codec))

    def computed(self, sequence: int, now_s: float, measured_s: float, *, failed: bool) -> None:
        """See `DeviceCore.computed`."""
        job = self._queue.computing
        assert job is not None
        assert job.sequence == sequence
        self._queue.computing = None
        if not failed:
            self._own.computed(job.head_s, measured_s)
            if job.fallback and self._fallback is not None:
                self._fallback.took(job.head_s, now_s - self._queue.compute_start_s)
        if sequence in self.jobs:
            if failed:
                self.end(job, End.FAILED, "compute", now_s)
            else:
                self._head_done(job, now_s)
        self._next_head(now_s)

    def _head_done(self, job: Job, now_s: float) -> None:
        job.send_s = now_s
        job.kept = job.decision
        if job.local:
            self._answered(job, now_s)
        elif not self.edge.trusted and self.finish_alone(job, now_s):
            pass
        elif not self.edge.connected:
            self.end(job, End.FAILED, "edge-lost", now_s)
        else:
            job.stage = Stage.LINK
            self._queue.uploads.append(job)
            self._next_upload(now_s)

    def _next_upload(self, now_s: float) -> None:
        while self._queue.uploading is None and self._queue.uploads and not self._probes.under_way:
            job = self._queue.uploads.popleft()
            if self._queue.hopeless(job, now_s + job.upload_s):
                if not self.finish_alone(job, now_s):
                    self.say(Withdraw(job.sequence))
                    self.end(job, End.EXPIRED, "link", now_s)
                continue
            job.stage, job.link_start_s = Stage.UPLOADING, now_s
            self._queue.uploading, self._queue.link_until_s = job, now_s + job.upload_s
            task, decision = job.task, job.decision
            self.actions.append(
                Carry(
                    job.sequence,
                    decision.exit,
                    decision.cut,
                    task.size,
                    task.deadline_s,
                    decision.codec,
                    job.unasked,
                    None if job.predicted is None else job.predicted.finish_s,
                )
            )

    def probed(self, now_s: float) -> None:
        """See `DeviceCore.probed`."""
        self._probes.carried(now_s)
        self._next_upload(now_s)

    def probe_due_s(self) -> float:
        """When `probe` is due; infinity if it is not."""
        idle = self._queue.uploading is None and not self._queue.uploads
        return self._probes.due_s(idle=idle and self.edge.connected)

    def carried(self, sequence: int, now_s: float) -> None:
        """See `DeviceCore.carried`."""
        job = self._queue.uploading
        assert job is not None
        assert job.sequence == sequence
        self._queue.uploading = None
        self._probes.carried(now_s)
        if sequence in self.jobs and job.stage is Stage.UPLOADING:
            job.stage, job.sent_s = Stage.AWAITING, now_s
            job.check_s = self._overdue_s(job)
        self._next_upload(now_s)

    def _overdue_s(self, job: Job) -> float:
        assert job.predicted is not None
        assert job.predicted.finish_s is not None
        expected_s = job.predicted.finish_s
        spare_s = max(LEAST_OVERDUE_S, OVERDUE * (expected_s - job.task.arrival_s))
        return min(expected_s + spare_s, max(job.task.deadline_s, expected_s))

    def uploaded_exit(self, sequence: int) -> int | None:
        """See `DeviceCore.uploaded_exit`."""
        job = self.jobs.get(sequence)
        return None if job is None or job.sent_s is None or job.kept is None else job.kept.exit

    def answer(self, answer: Answer, now_s: float) -> bool:
        """See `DeviceCore.answer`."""
        job = self.jobs.get(answer.sequence)
        if job is None or job.sent_s is None:
            self._ledger.late_answers += 1
            return False
        if job.fallback:
            # The edge has come first after all.
            job.decision = job.kept or job.decision
            job.fallback = False
            if job in self._queue.heads:
                self._queue.heads.remove(job)
        job.edge_waited_s, job.edge_computed_s = answer.waited_s, answer.computed_s
        # The answer was under way for about half a round trip.
        began_s = now_s - self.edge.round_trip_s / 2 - answer.computed_s
        job.edge_start_s = max(began_s, job.sent_s)
        self._answered(job, now_s)
        return True

    def finish_alone(self, job: Job, now_s: float) -> bool:
        """Plan the task on the device from here on; False if it cannot end in time.

        It waits as if for its quickest exit. When its turn comes, `_deepen` sees how deep it may go.
        """
        if job.stage is Stage.COMPUTING or self._fallback is None:
            return False
        free_s, _ = self._queue.backlog(now_s)
        plan = self._fallback.soonest(job, free_s)
        if plan is None:
            return False
        self._queue.leave(job)
        if job.decision.exit and not job.local:
            self.say(Withdraw(job.sequence))
        job.take(plan)
        job.upload_s = 0.0
        job.local = job.fallback = True
        if job.predicted is None:
            job.predicted = Instants(free_s, plan.finish_s, None, plan.finish_s)
        self.enqueue(job, now_s)
        return True

    def _deepen(self, job: Job, now_s: float) -> bool:
        """Choose the exit at which the device finishes a task, as it begins; False if none fits any more."""
        assert self._fallback is not None
        plan = self._fallback.deepest(job, self._queue.heads, now_s)
        if plan is None:
            return False
        if plan.decision != job.decision:
            self.actions.append(Decided(job.sequence, plan.decision))
        job.take(plan)
        return True

    def plan_alone(self, now_s: float) -> None:
        """Have every task that counts on the edge finished without it, as far as time allows."""
        remote = [job for job in self.jobs.values() if not job.local]
        # Those that wait for the processor already give their place up first: each is planned behind the last.
        for job in remote:
            if job in self._queue.heads:
                self._queue.heads.remove(job)
        for job in sorted(remote, key=lambda each: each.task.deadline_s):
            if not self.finish_alone(job, now_s) and job.stage is Stage.QUEUED:
                self._queue.heads.append(job)
        self._next_head(now_s)

    def probe(self) -> None:
        """Send a few bytes over the link, which is idle."""
        self._probes.under_way = True
        self.actions.append(SendProbe(int(probe_bytes(self._own.bandwidth_bytes_per_s))))

    def give_up(self, job: Job, end: End, reason: str, now_s: float) -> None:
        """End a task, whatever it waits for."""
        self._queue.leave(job)
        self.end(job, end, reason, now_s)

    def _answered(self, job: Job, now_s: float) -> None:
        if job.predicted is not None and job.predicted.finish_s is not None and not job.fallback:
            arrival_s = job.task.arrival_s
            self._margin.finished(job.predicted.finish_s - arrival_s, now_s - arrival_s)
        end = End.ON_TIME if on_time(now_s, job.task.deadline_s) else End.LATE
        self.end(job, end, "", now_s)

    def end(self, job: Job, end: End, reason: str, now_s: float) -> None:
        """Close a task's books."""
        del self.jobs[job.sequence]
        self._ledger.close(job.sequence, end)
        self.actions.append(Finished(job.record(end, reason, now_s)))

    def say(self, message: Message) -> None:
        """Send the edge a control message, if there is one."""
        if self.edge.connected:
            self.actions.append(Say(message))
