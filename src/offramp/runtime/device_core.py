"""The device as a state machine: tasks, messages and instants in, actions out. No input or output, no clock.

A task is announced, decided by the edge, computed up to its cut, uploaded and answered. Whenever the edge cannot
answer in time, as far as the device can tell, the device finishes the task itself at the best exit that still
fits. What is decided, and what is believed of the edge, is here; how it is carried out is in `device_work`.
"""

from __future__ import annotations

import math

from offramp.equations import on_time
from offramp.runtime.device_fallback import Fallback
from offramp.runtime.device_job import Action, Job, Stage, Unasked
from offramp.runtime.device_probe import Probes
from offramp.runtime.device_work import DeviceWork
from offramp.runtime.edge_view import EdgeView, Ready
from offramp.runtime.margin import Margin
from offramp.runtime.outcomes import End, Instants, Ledger
from offramp.runtime.own import OwnSystem
from offramp.runtime.protocol import (
    Announce,
    Answer,
    Bye,
    Declined,
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
LAST_CALL_S = 3.0
"""How long after its deadline a device still waits for an answer that only counts as late."""


class DeviceCore:
    """All tasks of one device. Every method takes the present instant and leaves actions in `take`.

    Without `fallback` it never decides alone, as the timing model `network` has it. With `probes` it sends a few bytes
    over a link that has long carried nothing while there are tasks, so that the edge knows how the link is.
    """

    def __init__(
        self,
        own: OwnSystem,
        *,
        fallback: bool = True,
        probes: Probes | None = None,
        margin: Margin | None = None,
    ) -> None:
        self._fallback = Fallback() if fallback else None
        self._probes = probes or Probes(steady=True, wanted=False)
        self.ledger = Ledger()
        self._own = own
        self._margin = margin or Margin()
        self._work = DeviceWork(own, self._fallback, self._probes, self._margin, self.ledger)

    def take(self) -> list[Action]:
        """The actions since the last call, in order."""
        actions, self._work.actions = self._work.actions, []
        return actions

    @property
    def edge(self) -> EdgeView:
        """What the device believes of its edge."""
        return self._work.edge

    @property
    def idle(self) -> bool:
        """Whether every task has ended and the processor is free."""
        return self._work.idle

    def size_of(self, sequence: int) -> int:
        """Inputs of a task that is in flight."""
        return self._work.jobs[sequence].task.size

    def expect_tasks(self, now_s: float) -> None:
        """Tasks will come soon: let the edge learn how the link is."""
        self._probes.expect_tasks(now_s)

    def submit(self, sequence: int, task: Task, now_s: float) -> None:
        """Take a task on."""
        self.ledger.accept(sequence)
        self._probes.expect_tasks(now_s)
        ready = self._ready(task, now_s)
        job = Job(sequence, task, self._own.options(task.size) if ready is None else ready.options)
        self._work.jobs[sequence] = job
        if self._fallback is not None:
            self._fallback.arrived(task, job.alone().quickest if ready is None else ready.alone)
        if ready is not None:
            self._begin_unasked(job, ready, now_s)
            return
        if not self.edge.trusted or self.edge.closing:
            if not self._work.finish_alone(job, now_s):
                self._work.end(job, End.REJECTED, "no-edge", now_s)
            return
        device_free_s, link_free_s = self._work.backlog(now_s)
        job.announced_s = now_s
        job.check_s = now_s + max(LEAST_PATIENCE_S, PATIENCE * task.budget_s)
        self._work.say(
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
        if not self._work.free or not self.edge.trusted or self.edge.closing:
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
        self._work.enqueue(job, now_s)

    def verdict(self, verdict: Verdict, now_s: float) -> None:
        """The edge has decided a task."""
        self.edge.verdicts += 1
        job = self._work.jobs.get(verdict.sequence)
        if job is None or job.stage is not Stage.DECIDING:
            return
        self.edge.round_trip_s = now_s - job.announced_s
        self._own.bandwidth_bytes_per_s = verdict.bandwidth_bytes_per_s
        job.decided = Decision(verdict.exit, verdict.cut, verdict.codec)
        if verdict.exit == 0:
            reason = verdict.reason or Refusal.POLICY
            # What the policy turns away stays away; an edge that cannot take it leaves it to the device.
            if reason is Refusal.POLICY or not self._work.finish_alone(job, now_s):
                self._work.end(job, End.REJECTED, str(reason), now_s)
            return
        arrival_s = job.task.arrival_s
        if not job.options.offers(job.decided):
            job.decision = job.decided
            self._work.end(job, End.FAILED, "no-such-option", now_s)
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
        self._work.enqueue(job, now_s)

    def declined(self, declined: Declined, now_s: float) -> None:
        """The edge does not compute an upload."""
        job = self._work.jobs.get(declined.sequence)
        if job is None or job.fallback:
            return
        late = declined.reason in (Refusal.EXPIRED, Refusal.TOO_LATE)
        if not self._work.finish_alone(job, now_s):
            reason = "edge-queue" if late else str(declined.reason)
            self._work.give_up(job, End.EXPIRED if late else End.FAILED, reason, now_s)

    def computed(self, sequence: int, now_s: float, *, measured_s: float, failed: bool = False) -> None:
        """The processor is done with a `Compute`, which took `measured_s`."""
        self._work.computed(sequence, now_s, measured_s, failed=failed)

    def sending(self, size_bytes: int) -> None:
        """The present upload or probe begins to cross, as a frame of so many bytes."""
        self._work.say(Sending(size_bytes))

    def carried(self, sequence: int, now_s: float) -> None:
        """The present upload has left the device."""
        self._work.carried(sequence, now_s)

    def probed(self, now_s: float) -> None:
        """The present probe has left the device."""
        self._work.probed(now_s)

    def uploaded_exit(self, sequence: int) -> int | None:
        """The exit whose logits an answer for this task holds; None if none is awaited."""
        return self._work.uploaded_exit(sequence)

    def answer(self, answer: Answer, now_s: float) -> bool:
        """The edge has answered; whether the task still wanted it. A late one is counted, not delivered twice."""
        return self._work.answer(answer, now_s)

    def edge_up(self, now_s: float) -> None:
        """A session is open, or the edge gives signs of life again."""
        if not self.edge.connected:
            self._work.edge = EdgeView(connected=True)
            self._probes.connected()
        self.edge.trusted = True

    def edge_silent(self, now_s: float) -> None:
        """The edge gives no sign of life: plan without it, but take its answers if they come."""
        if self.edge.trusted:
            self.edge.trusted = False
            self._work.plan_alone(now_s)

    def edge_closing(self) -> None:
        """The edge takes no new tasks: decide alone, but wait for what it has taken."""
        self.reconsider()
        self.edge.closing = True

    def edge_lost(self, now_s: float) -> None:
        """The session is over: what cannot be finished alone has failed."""
        self._work.edge = EdgeView()
        self._work.plan_alone(now_s)
        for job in list(self._work.jobs.values()):
            if not job.local and job.stage is not Stage.COMPUTING:
                decided = job.stage is not Stage.DECIDING
                end = End.FAILED if decided else End.REJECTED
                self._work.give_up(job, end, "edge-lost" if decided else "no-edge", now_s)

    def tick(self, now_s: float) -> None:
        """Call this at `next_check_s`, or later: give up waiting where that is due, and probe an idle link."""
        if self._work.probe_due_s() <= now_s:
            self._work.probe()
        for job in [job for job in self._work.jobs.values() if job.check_s <= now_s]:
            deadline_s = job.task.deadline_s
            deciding = job.stage is Stage.DECIDING
            if self._work.finish_alone(job, now_s):
                if deciding:
                    self._work.say(Withdraw(job.sequence))
            elif deciding and now_s > deadline_s:
                self._work.say(Withdraw(job.sequence))
                self._work.end(job, End.EXPIRED, "no-verdict", now_s)
            elif now_s >= deadline_s + LAST_CALL_S:
                self._work.end(job, End.FAILED, "no-answer", now_s)
            elif deciding:
                job.check_s = math.nextafter(deadline_s, math.inf)
            else:
                job.check_s = deadline_s + LAST_CALL_S

    def next_check_s(self) -> float:
        """When `tick` is due; infinity if it is not."""
        return min((self._work.probe_due_s(), *(job.check_s for job in self._work.jobs.values())))

    def bye(self) -> None:
        """Say goodbye to the edge."""
        self._work.say(Bye())

    def abandon(self, now_s: float) -> None:
        """End every task that is still open: the device stops at once."""
        for job in list(self._work.jobs.values()):
            self._work.give_up(job, End.FAILED, "stopped", now_s)
