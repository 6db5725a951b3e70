"""The device as a state machine: tasks, messages and instants in, actions out. No input or output, no clock.

A task is announced, decided by the edge, computed up to its cut, uploaded and answered. Whenever the edge cannot
answer in time, as far as the device can tell, the device finishes the task itself at the best exit that still
fits.
"""

from __future__ import annotations

import math

from offramp.equations import on_time
from offramp.link_estimate import probe_bytes
from offramp.runtime.device_fallback import Fallback
from offramp.runtime.device_job import (
    Action,
    Carry,
    Compute,
    Decided,
    Finished,
    Job,
    Say,
    SendProbe,
    Stage,
    Unasked,
)
from offramp.runtime.device_probe import Probes
from offramp.runtime.device_queue import DeviceQueue
from offramp.runtime.edge_view import EdgeView, Ready
from offramp.runtime.margin import Margin
from offramp.runtime.outcomes import End, Instants, Ledger
from offramp.runtime.own import OwnSystem
from offramp.runtime.protocol import (
    Announce,
    Answer,
    Bye,
    Declined,
    Message,
    Refusal,
    Sending,
    Standing,
    Verdict,
    Withdraw,
    fits,
)
from offramp.task import Decision, Task

PATIENCE = 0.2
"""Share of a budget that a device waits for a verdict before it decides alone."""
LEAST_PATIENCE_S = 0.03
OVERDUE = 0.25
"""How far beyond its predicted duration an answer is overdue, as a share of that duration."""
LEAST_OVERDUE_S = 0.02
LAST_CALL_S = 3.0
"""How long after its deadline a device still waits for an answer that only counts as late."""


class DeviceCore:
    """All tasks of one device. Every method takes the present instant and leaves actions in `take`.

    Without `fallback` it never decides alone, as the timing model `network` has it. With `probe` it sends a few bytes
    over a link that has long carried nothing while there are tasks, so that the edge knows how the link is.
    """

    def __init__(
        self, own: OwnSystem, *, fallback: bool = True, probe: bool = False, margin: Margin | None = None
    ) -> None:
        self._fallback = Fallback() if fallback else None
        self._probes = Probes(wanted=probe)
        self.ledger = Ledger()
        self.edge = EdgeView()
        self._own = own
        self._margin = margin or Margin()
        self._jobs: dict[int, Job] = {}
        self._queue = DeviceQueue(own.link_delay_s)
        self._actions: list[Action] = []

    def take(self) -> list[Action]:
        """The actions since the last call, in order."""
        actions, self._actions = self._actions, []
        return actions

    @property
    def idle(self) -> bool:
        """Whether every task has ended and the processor is free."""
        return not self._jobs and self._queue.computing is None

    def size_of(self, sequence: int) -> int:
        """Inputs of a task that is in flight."""
        return self._jobs[sequence].task.size

    def submit(self, sequence: int, task: Task, now_s: float) -> None:
        """Take a task on."""
        self.ledger.accept(sequence)
        self._probes.task(now_s)
        ready = self._ready(task, now_s)
        job = Job(sequence, task, self._own.options(task.size) if ready is None else ready.options)
        self._jobs[sequence] = job
        if self._fallback is not None:
            self._fallback.arrived(task, job.alone().quickest if ready is None else ready.alone)
        if ready is not None:
            self._begin_unasked(job, ready, now_s)
            return
        if not self.edge.trusted or self.edge.closing:
            if not self._finish_alone(job, now_s):
                self._end(job, End.REJECTED, "no-edge", now_s)
            return
        device_free_s, link_free_s = self._queue.backlog(now_s)
        job.announced_s = now_s
        job.check_s = now_s + max(LEAST_PATIENCE_S, PATIENCE * task.budget_s)
        self._say(
            Announce(
                sequence,
                task.size,
                task.budget_s,
                fits(task.deadline_s - now_s),
                self.edge.verdicts,
                device_free_s - now_s,
                link_free_s - now_s,
                self._own.slowdown,
                self.edge.round_trip_s,
                self._margin.share,
            )
        )

    def standing(self, standing: Standing) -> None:
        """What the edge would decide of a task that finds everything idle."""
        self.edge.stands(standing, self._own)

    def reconsider(self) -> None:
        """Every task is to be announced again."""
        self.edge.standing.clear()

    def _ready(self, task: Task, now_s: float) -> Ready | None:
        """What stands for a new task, if it meets the situation that this is for."""
        queue = self._queue
        # What has ended may still be on the processor or the link.
        free = queue.computing is None and queue.uploading is None and not self._probes.under_way
        if self._jobs or not free or not self.edge.trusted or self.edge.closing:
            return None
        ready = self.edge.ready(task, self._own)
        in_time = ready is not None and on_time(now_s + ready.standing.finish_s, task.deadline_s)
        return ready if in_time else None

    def _begin_unasked(self, job: Job, ready: Ready, now_s: float) -> None:
        standing = ready.standing
        self._own.bandwidth_bytes_per_s = standing.bandwidth_bytes_per_s
        job.decided = job.decision = ready.decision
        job.unasked = Unasked(job.task.budget_s, self._own.slowdown, self._margin.share)
        job.head_s, job.upload_s, job.local = ready.head_s, ready.upload_s, ready.local
        job.predicted = Instants(
            now_s, now_s + standing.send_s, now_s + standing.edge_start_s, now_s + standing.finish_s
        )
        self._enqueue(job, now_s)

    def verdict(self, verdict: Verdict, now_s: float) -> None:
        """The edge has decided a task."""
        self.edge.verdicts += 1
        job = self._jobs.get(verdict.sequence)
        if job is None or job.stage is not Stage.DECIDING:
            return
        self.edge.round_trip_s = now_s - job.announced_s
        self._own.bandwidth_bytes_per_s = verdict.bandwidth_bytes_per_s
        job.decided = Decision(verdict.exit, verdict.cut, verdict.codec)
        if verdict.exit == 0:
            reason = verdict.reason or Refusal.POLICY
            # What the policy turns away stays away; an edge that cannot take it leaves it to the device.
            if reason is Refusal.POLICY or not self._finish_alone(job, now_s):
                self._end(job, End.REJECTED, str(reason), now_s)
            return
        arrival_s = job.task.arrival_s
        if not job.options.offers(job.decided):
            job.decision = job.decided
            self._end(job, End.FAILED, "no-such-option", now_s)
            return
        row = job.options.row_of(job.decided)
        predicted = Instants(
            arrival_s + verdict.device_start_s,
            arrival_s + verdict.send_s,
            None if job.options.local[row] else arrival_s + verdict.edge_start_s,
            arrival_s + verdict.finish_s,
        )
        job.decision, job.predicted = job.decided, predicted
        job.head_s = float(job.options.head_s[row])
        job.upload_s = float(self._own.options(job.task.size).upload_s[row])
        job.local = bool(job.options.local[row])
        self._enqueue(job, now_s)

    def _enqueue(self, job: Job, now_s: float) -> None:
        self._actions.append(Decided(job.sequence, job.decision))
        job.stage, job.check_s = Stage.QUEUED, math.inf
        self._queue.heads.append(job)
        self._next_head(now_s)

    def _next_head(self, now_s: float) -> None:
        while self._queue.computing is None and self._queue.heads:
            job = self._queue.heads.popleft()
            if not on_time(now_s, job.task.deadline_s):
                if not job.local:
                    self._say(Withdraw(job.sequence))
                self._end(job, End.EXPIRED, "device-queue", now_s)
                continue
            if job.fallback and not self._deepen(job, now_s):
                self._end(job, End.EXPIRED, "device-queue", now_s)
                continue
            if job.device_start_s is None:
                job.device_start_s = now_s
            job.stage = Stage.COMPUTING
            self._queue.computing, self._queue.compute_start_s = job, now_s
            decision = job.decision
            self._actions.append(
                Compute(job.sequence, decision.exit, job.start, decision.cut, decision.codec)
            )

    def computed(self, sequence: int, now_s: float, *, measured_s: float, failed: bool = False) -> None:
        """The processor is done with a `Compute`, which took `measured_s`."""
        job = self._queue.computing
        assert job is not None
        assert job.sequence == sequence
        self._queue.computing = None
        if not failed:
            self._own.computed(job.head_s, measured_s)
            if job.fallback and self._fallback is not None:
                self._fallback.took(job.head_s, now_s - self._queue.compute_start_s)
        if sequence in self._jobs:
            if failed:
                self._end(job, End.FAILED, "compute", now_s)
            else:
                self._head_done(job, now_s)
        self._next_head(now_s)

    def _head_done(self, job: Job, now_s: float) -> None:
        job.send_s = now_s
        job.kept = job.decision
        if job.local:
            self._answered(job, now_s)
        elif not self.edge.trusted and self._finish_alone(job, now_s):
            pass
        elif not self.edge.connected:
            self._end(job, End.FAILED, "edge-lost", now_s)
        else:
            job.stage = Stage.LINK
            self._queue.uploads.append(job)
            self._next_upload(now_s)

    def _next_upload(self, now_s: float) -> None:
        while self._queue.uploading is None and self._queue.uploads and not self._probes.under_way:
            job = self._queue.uploads.popleft()
            if self._queue.hopeless(job, now_s + job.upload_s):
                if not self._finish_alone(job, now_s):
                    self._say(Withdraw(job.sequence))
                    self._end(job, End.EXPIRED, "link", now_s)
                continue
            job.stage, job.link_start_s = Stage.UPLOADING, now_s
            self._queue.uploading, self._queue.link_until_s = job, now_s + job.upload_s
            task, decision = job.task, job.decision
            self._actions.append(
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

    def sending(self, size_bytes: int) -> None:
        """The present upload or probe begins to cross, as a frame of so many bytes."""
        self._say(Sending(size_bytes))

    def probed(self, now_s: float) -> None:
        """The present probe has left the device."""
        self._probes.carried(now_s)
        self._next_upload(now_s)

    def _probe_due_s(self) -> float:
        idle = self._queue.uploading is None and not self._queue.uploads
        return self._probes.due_s(idle=idle and self.edge.connected)

    def carried(self, sequence: int, now_s: float) -> None:
        """The present upload has left the device."""
        job = self._queue.uploading
        assert job is not None
        assert job.sequence == sequence
        self._queue.uploading = None
        self._probes.carried(now_s)
        if sequence in self._jobs and job.stage is Stage.UPLOADING:
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
        """The exit whose logits an answer for this task holds; None if none is awaited."""
        job = self._jobs.get(sequence)
        return None if job is None or job.sent_s is None or job.kept is None else job.kept.exit

    def answer(self, answer: Answer, now_s: float) -> bool:
        """The edge has answered; whether the task still wanted it. A late one is counted, not delivered twice."""
        job = self._jobs.get(answer.sequence)
        if job is None or job.sent_s is None:
            self.ledger.late_answers += 1
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

    def declined(self, declined: Declined, now_s: float) -> None:
        """The edge does not compute an upload."""
        job = self._jobs.get(declined.sequence)
        if job is None or job.fallback:
            return
        late = declined.reason in (Refusal.EXPIRED, Refusal.TOO_LATE)
        if not self._finish_alone(job, now_s):
            reason = "edge-queue" if late else str(declined.reason)
            self._end(job, End.EXPIRED if late else End.FAILED, reason, now_s)

    def _finish_alone(self, job: Job, now_s: float) -> bool:
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
            self._say(Withdraw(job.sequence))
        job.take(plan)
        job.upload_s = 0.0
        job.local = job.fallback = True
        if job.predicted is None:
            job.predicted = Instants(free_s, plan.finish_s, None, plan.finish_s)
        self._enqueue(job, now_s)
        return True

    def _deepen(self, job: Job, now_s: float) -> bool:
        """Choose the exit at which the device finishes a task, as it begins; False if none fits any more."""
        assert self._fallback is not None
        plan = self._fallback.deepest(job, self._queue.heads, now_s)
        if plan is None:
            return False
        if plan.decision != job.decision:
            self._actions.append(Decided(job.sequence, plan.decision))
        job.take(plan)
        return True

    def edge_up(self, now_s: float) -> None:
        """A session is open, or the edge gives signs of life again."""
        if not self.edge.connected:
            self.edge = EdgeView(connected=True)
        self.edge.trusted = True

    def edge_silent(self, now_s: float) -> None:
        """The edge gives no sign of life: plan without it, but take its answers if they come."""
        if self.edge.trusted:
            self.edge.trusted = False
            self._plan_alone(now_s)

    def edge_closing(self) -> None:
        """The edge takes no new tasks: decide alone, but wait for what it has taken."""
        self.reconsider()
        self.edge.closing = True

    def edge_lost(self, now_s: float) -> None:
        """The session is over: what cannot be finished alone has failed."""
        self.edge = EdgeView()
        self._plan_alone(now_s)
        for job in list(self._jobs.values()):
            if not job.local and job.stage is not Stage.COMPUTING:
                decided = job.stage is not Stage.DECIDING
                self._queue.leave(job)
                end = End.FAILED if decided else End.REJECTED
                self._end(job, end, "edge-lost" if decided else "no-edge", now_s)

    def _plan_alone(self, now_s: float) -> None:
        remote = [job for job in self._jobs.values() if not job.local]
        # Those that wait for the processor already give their place up first: each is planned behind the last.
        for job in remote:
            if job in self._queue.heads:
                self._queue.heads.remove(job)
        for job in sorted(remote, key=lambda each: each.task.deadline_s):
            if not self._finish_alone(job, now_s) and job.stage is Stage.QUEUED:
                self._queue.heads.append(job)
        self._next_head(now_s)

    def tick(self, now_s: float) -> None:
        """Call this at `next_check_s`, or later: give up waiting where that is due, and probe an idle link."""
        if self._probe_due_s() <= now_s:
            self._probes.under_way = True
            self._actions.append(SendProbe(int(probe_bytes(self._own.bandwidth_bytes_per_s))))
        for job in [job for job in self._jobs.values() if job.check_s <= now_s]:
            deadline_s = job.task.deadline_s
            deciding = job.stage is Stage.DECIDING
            if self._finish_alone(job, now_s):
                if deciding:
                    self._say(Withdraw(job.sequence))
            elif deciding and now_s > deadline_s:
                self._say(Withdraw(job.sequence))
                self._end(job, End.EXPIRED, "no-verdict", now_s)
            elif now_s >= deadline_s + LAST_CALL_S:
                self._end(job, End.FAILED, "no-answer", now_s)
            elif deciding:
                job.check_s = math.nextafter(deadline_s, math.inf)
            else:
                job.check_s = deadline_s + LAST_CALL_S

    def next_check_s(self) -> float:
        """When `tick` is due; infinity if it is not."""
        return min((self._probe_due_s(), *(job.check_s for job in self._jobs.values())))

    def bye(self) -> None:
        """Say goodbye to the edge."""
        self._say(Bye())

    def abandon(self, now_s: float) -> None:
        """End every task that is still open: the device stops at once."""
        for job in list(self._jobs.values()):
            self._queue.leave(job)
            self._end(job, End.FAILED, "stopped", now_s)

    def _answered(self, job: Job, now_s: float) -> None:
        if job.predicted is not None and job.predicted.finish_s is not None and not job.fallback:
            arrival_s = job.task.arrival_s
            self._margin.finished(job.predicted.finish_s - arrival_s, now_s - arrival_s)
        end = End.ON_TIME if on_time(now_s, job.task.deadline_s) else End.LATE
        self._end(job, end, "", now_s)

    def _end(self, job: Job, end: End, reason: str, now_s: float) -> None:
        del self._jobs[job.sequence]
        self.ledger.close(job.sequence, end)
        self._actions.append(Finished(job.record(end, reason, now_s)))

    def _say(self, message: Message) -> None:
        if self.edge.connected:
            self._actions.append(Say(message))
