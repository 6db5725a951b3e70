"""The edge as a state machine: messages and instants in, actions out. No input or output, no clock of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from offramp.edge_queue import EdgeQueue
from offramp.model.tensors import Array, TensorSpec
from offramp.observation import Observation
from offramp.policies import Policy
from offramp.policies.base import Varying
from offramp.policies.greedy import EdgeOnly
from offramp.runtime.client_protocol import Offer, Served
from offramp.runtime.edge_job import Action, Batch, Counts, Foresee, Hang, Remake, Reply, Run, Say, Work
from offramp.runtime.edge_queue import WorkQueue
from offramp.runtime.edge_sessions import Limits, Session, Sessions
from offramp.runtime.forecast import Forecast, RunningSpeed
from offramp.runtime.foresight import Foresight
from offramp.runtime.processor import Coded, Crossed
from offramp.runtime.protocol import (
    VERSION,
    Announce,
    Answer,
    Begun,
    Bye,
    Closing,
    CodedUpload,
    Declined,
    FromDevice,
    Hello,
    Message,
    Ping,
    Pong,
    Refusal,
    Refused,
    Sending,
    Upload,
    Verdict,
    Welcome,
    Withdraw,
    fits,
)
from offramp.runtime.wire import ProtocolError, arrays_of, wire_of
from offramp.task import UNCODED, Decision

GRACE_S = 1.0
"""How long after its deadline a decided task may still reach the edge before it is forgotten."""
SILENCE_S = 2.0
"""A device that has said nothing for so long is taken for gone: it pings several times a second."""


class EdgeCore:
    """Sessions, decisions and the queue. Every method takes the present instant and leaves actions in `take`."""

    def __init__(
        self,
        forecast: Forecast,
        boundary: Callable[[int, int], Sequence[TensorSpec]],
        *,
        model_sha256: str,
        policy_name: str,
        interim: Policy,
        limits: Limits | None = None,
    ) -> None:
        self.counts = Counts()
        self._forecast = forecast
        self._boundary = boundary
        self._model_sha256 = model_sha256
        self._policy_name = policy_name
        self._interim = interim
        self._policy: Policy | None = None
        self._version = 0
        self.limits = limits or Limits()
        self._sessions = Sessions(self.limits)
        self._foresight = Foresight(forecast)
        self._queue = WorkQueue(forecast.network.edge_workers, self.limits.fit, forecast.batching())
        self.draining = False
        self._actions: list[Action] = []

    def take(self) -> list[Action]:
        """The actions since the last call, in order."""
        actions, self._actions = self._actions, []
        return actions

    @property
    def idle(self) -> bool:
        """Whether nothing is decided, waiting or running."""
        return self._queue.idle and not any(session.expected for session in self._sessions)

    @property
    def speed(self) -> RunningSpeed:
        """How fast the edge computes, on its profile."""
        return self._forecast.speed

    @property
    def waiting(self) -> int:
        """Uploads that wait for a worker."""
        return self._queue.waiting

    @property
    def workers(self) -> tuple[int, int]:
        """Workers that compute, and all of them."""
        return self._queue.busy, self._queue.workers

    @property
    def devices(self) -> int:
        """Connected devices."""
        return len(self._sessions)

    def hello(self, hello: Hello, now_s: float) -> bytes | Refused:
        """Open a session; its token, or why not."""
        codecs = self._forecast.codecs
        refused = self._sessions.refuse(hello, self._model_sha256, codecs, draining=self.draining)
        if refused is not None:
            return refused
        before = self._sessions.of(hello.device)
        if before is not None:
            # The same start of the same device comes back before its old connection was seen to break.
            self._cut_off(before, now_s)
        token = self._sessions.open(hello, self._forecast.join(hello), now_s).token
        self._remake()
        gain = self._forecast.gain
        welcome = Welcome(VERSION, token, self._policy_name, gain.accuracy_weight, gain.accuracy_slope)
        self._actions.append(Say(token, welcome))
        return token

    def control(self, token: bytes, message: FromDevice, now_s: float) -> None:
        """A message of an open session. Raises ProtocolError if it is out of turn."""
        session = self._sessions.get(token)
        if session is None:
            return
        self._sessions.heard(session, now_s)
        match message:
            case Announce():
                self._announce(session, message, now_s)
            case Withdraw(sequence):
                session.expected.pop(sequence, None)
                self._queue.withdraw(token, sequence)
            case Sending(size_bytes):
                # It was said about half a round trip ago.
                session.peer.link.begins(size_bytes, now_s - session.peer.decision_s / 2)
            case Ping(number):
                self._actions.append(Say(token, Pong(number)))
            case Bye():
                self._cut_off(session, now_s)
            case Hello():
                raise ProtocolError("hello: the session is open already")

    def _announce(self, session: Session, announce: Announce, now_s: float) -> None:
        self._tell(self._foresight.at_work(session.token, now_s))
        calm = self.idle and announce.device_free_in_s == 0 and announce.link_free_in_s == 0
        observation = self._forecast.observe(session.peer, announce, self._queued(now_s), now_s)
        decided = self._decide(session, announce, observation)
        if isinstance(decided, Refusal):
            rate = session.peer.link.bandwidth_bytes_per_s
            verdict = Verdict(announce.sequence, 0, 0, UNCODED, decided, 0.0, 0.0, 0.0, 0.0, rate)
        else:
            verdict = self._accept(session, announce, observation, decided)
        session.peer.verdicts += 1
        self._actions.append(Say(session.token, verdict))
        if calm and isinstance(decided, Decision):
            kind = announce.size, announce.budget_s
            self._settle(session, kind, observation, decided, now_s)

    def _settle(
        self,
        session: Session,
        kind: tuple[int, float],
        observation: Observation,
        decision: Decision,
        now_s: float,
    ) -> None:
        self._tell(self._foresight.settle(session, kind, observation, self._policy, decision, now_s))

    def _tell(self, says: Sequence[Say]) -> None:
        self._actions.extend(say for say in says if say.session in self._sessions)

    def foresee(self, asked: Foresee, now_s: float) -> None:
        """Decide a device's next task of a kind before it comes, unless there is something else to do by now."""
        session = self._sessions.get(asked.session)
        if session is None or self._policy is None or self.draining or not self.idle:
            return
        if isinstance(self._policy, Varying):
            return
        observation = self._forecast.foresee(
            session.peer, asked.size, asked.budget_s, self._queued(now_s), now_s
        )
        decision = self._policy.decide(observation)
        if decision.exit > 0:
            self._forecast.tail_s(decision, asked.size)  # so that it is known when the task is here
        self._settle(session, (asked.size, asked.budget_s), observation, decision, now_s)

    def _queued(self, now_s: float) -> EdgeQueue:
        expected = (work for each in self._sessions for work in each.expected.values())
        return self._queue.forecast(expected, now_s)

    def _decide(
        self, session: Session, task: Announce | Offer, observation: Observation
    ) -> Decision | Refusal:
        """What is to be done with a task, or why nothing is; counted."""
        self.counts.announced += 1
        own = self._queue.waiting_of(session.token) + len(session.expected)
        reason = Refusal.DRAINING if self.draining else None
        reason = reason or self._sessions.turn_away(session, task, own, self._queue.waiting)
        if reason is None:
            decision = (self._policy or self._interim).decide(observation)
            if decision.exit > 0 and decision.cut > 0 and isinstance(task, Offer):
                decision = EdgeOnly().decide(observation)  # nobody could compute its first layers
            if decision.exit > 0:
                self._count(decision)
                return decision
            reason = Refusal.POLICY
        self.counts.turned_away[reason] = self.counts.turned_away.get(reason, 0) + 1
        return reason

    def _count(self, decision: Decision) -> None:
        self.counts.decided += 1
        self.counts.chosen[decision] = self.counts.chosen.get(decision, 0) + 1

    def _accept(
        self, session: Session, announce: Announce, observation: Observation, decision: Decision
    ) -> Verdict:
        options, task = observation.options, observation.task
        row = options.row_of(decision)
        predicted = [fits(instant_s - task.arrival_s) for instant_s in observation.timeline_of(row)]
        self._forecast.commit(session.peer, observation, decision)
        if not options.local[row]:
            _, _, _, arrival_s = observation.network_arrivals()
            session.expected[announce.sequence] = Work(
                session.token,
                announce.sequence,
                decision,
                announce.size,
                float(options.tail_s[row]),
                float(arrival_s[row]),
                task.arrival_s + announce.budget_s,
            )
        told = (*predicted, session.peer.link.bandwidth_bytes_per_s)
        return Verdict(announce.sequence, decision.exit, decision.cut, decision.codec, None, *told)

    def upload_due_s(self, token: bytes, now_s: float) -> float | None:
        """When what a lone device has begun to upload should be here; None among several."""
        session = self._sessions.get(token)
        if session is None or self.devices > 1:
            return None
        link = session.peer.link
        return link.free_s(now_s) + link.belief.delay_s

    def probe(self, token: bytes, now_s: float) -> None:
        """A probe has come."""
        session = self._sessions.get(token)
        if session is not None:
            session.peer.link.arrives(now_s)
            session.peer.link.believe(now_s)
            self._tell(self._foresight.check(session))

    def upload(self, token: bytes, upload: Upload | CodedUpload, now_s: float) -> None:
        """Tensors of a decided task have come. What is coded is decoded by a worker, as part of its work."""
        session = self._sessions.get(token)
        if session is None:
            return
        session.peer.link.arrives(now_s)
        work = session.expected.get(upload.sequence)
        sent = (upload.exit, upload.cut, upload.size)
        if work is None or (work.decision.exit, work.decision.cut, work.size) != sent:
            self._decline(token, upload.sequence, _why_not_expected(session, work, upload))
            return
        if _codec_of(upload) != work.decision.codec:
            self._decline(token, upload.sequence, Refusal.CODEC)
            return
        del session.expected[upload.sequence]
        self._take_in(session, work, upload, now_s)

    def begun(self, token: bytes, begun: Begun, now_s: float) -> None:
        """Tensors have come of a task that was not announced, since its device went by what stood."""
        session = self._sessions.get(token)
        if session is None:
            return
        upload = begun.upload
        session.peer.link.arrives(now_s)
        session.peer.acts(begun)
        self._sessions.heard(session, now_s)
        self._tell(self._foresight.at_work(token, now_s))
        self.counts.announced += 1
        own = self._queue.waiting_of(token) + len(session.expected)
        reason = self._sessions.turn_away(session, upload, own, self._queue.waiting)
        decision = Decision(upload.exit, upload.cut, _codec_of(upload))
        if reason is None and decision not in session.stood:
            reason = Refusal.UNKNOWN_TASK
        reason = Refusal.DRAINING if self.draining else reason
        if reason is not None:
            self.counts.turned_away[reason] = self.counts.turned_away.get(reason, 0) + 1
            self._reply(token, Declined(upload.sequence, reason))
            return
        self._count(decision)
        self.counts.unasked += 1
        tail_s = self._forecast.tail_s(decision, upload.size)
        deadline_s = now_s + upload.remaining_s
        work = Work(token, upload.sequence, decision, upload.size, tail_s, now_s, deadline_s)
        work.unasked_s = begun.budget_s
        self._take_in(session, work, upload, now_s)

    def _take_in(self, session: Session, work: Work, upload: Upload | CodedUpload, now_s: float) -> None:
        """What a task's device has sent is here: let it wait for a worker."""
        token = session.token
        session.taken.append(upload.sequence)
        session.last_here = max(session.last_here, upload.sequence)
        if isinstance(upload, CodedUpload):
            work.crossed = Coded(upload.codec, upload.payload, work.size)
        else:
            specs = self._boundary(work.decision.exit, work.decision.cut)
            try:
                work.crossed = arrays_of(upload.tensors, specs, work.size)
            except ProtocolError:
                self._decline(token, upload.sequence, Refusal.BAD_TENSORS)
                return
        work.arrival_s, work.deadline_s = now_s, now_s + upload.remaining_s
        self._queue.add(work)
        self._start(now_s)

    def offer(self, token: bytes, offer: Offer, now_s: float) -> None:
        """A task has come with its input: it is decided and, if it is taken, waits for a worker at once."""
        session = self._sessions.get(token)
        if session is None:
            return
        self._sessions.heard(session, now_s)
        self._tell(self._foresight.at_work(token, now_s))
        observation = self._forecast.observe_offer(session.peer, offer, self._queued(now_s), now_s)
        decided = self._decide(session, offer, observation)
        if isinstance(decided, Refusal):
            self._reply(token, Declined(offer.sequence, decided))
            return
        try:
            crossed = arrays_of(offer.tensors, self._boundary(decided.exit, 0), offer.size)
        except ProtocolError:
            self._decline(token, offer.sequence, Refusal.BAD_TENSORS)
            return
        tail_s = float(observation.options.tail_s[observation.options.row_of(decided)])
        deadline_s = now_s + offer.remaining_s
        self._queue.add(
            Work(token, offer.sequence, decided, offer.size, tail_s, now_s, deadline_s, crossed, offered=True)
        )
        self._start(now_s)

    def _start(self, now_s: float) -> None:
        for started in self._queue.start(now_s):
            if isinstance(started, Batch):
                self._actions.append(Run(started, tuple(map(_handed_over, started.works))))
            else:
                work, refusal = started
                self._decline(work.session, work.sequence, refusal)

    def apart(self, batch: Batch, now_s: float) -> None:
        """A thread of its own computes a batch of a `Run`: it may be given the next before it is done."""
        batch.apart = True
        self._start(now_s)

    def computed(
        self, batch: Batch, made: Sequence[tuple[str, Array] | Refusal], now_s: float, computed_s: float
    ) -> None:
        """A worker is done: for each of the batch the output's name and logits, or why there are none."""
        self._queue.done(batch, now_s)
        self.counts.runs += 1
        for work, logits in zip(batch.works, made, strict=True):
            if isinstance(logits, Refusal):
                self._decline(work.session, work.sequence, logits)
                continue
            self.counts.answered += 1
            waited_s = max(0.0, batch.start_s - work.arrival_s)
            answer = (wire_of(*logits), waited_s, computed_s)
            if work.offered:
                self._reply(work.session, Served(work.sequence, work.decision.exit, *answer))
            else:
                self._reply(work.session, Answer(work.sequence, *answer))
            if work.unasked_s is not None:
                self._actions.append(Foresee(work.session, work.size, work.unasked_s))
            if (session := self._sessions.get(work.session)) is not None:
                self._actions.extend(self._foresight.rest(session))
        self._start(now_s)

    def took(self, batch: Batch, computed_s: float) -> None:
        """How long a worker took for a batch that is answered. For behind the answers: nobody waits for it."""
        self._forecast.computed(self._forecast.batch_s(batch.tasks), computed_s)

    def _decline(self, token: bytes, sequence: int, reason: Refusal) -> None:
        self.counts.declined[reason] = self.counts.declined.get(reason, 0) + 1
        self._reply(token, Declined(sequence, reason))

    def _reply(self, token: bytes, message: Message) -> None:
        if token in self._sessions:
            self._actions.append(Reply(token, message))

    def gone(self, token: bytes, now_s: float) -> None:
        """A session has ended: what its device had here is dropped, and its place is free."""
        session = self._sessions.close(token)
        if session is None:
            return
        self._queue.withdraw(token)
        self._forecast.leave(session.peer.name)
        self._remake()
        self._start(now_s)

    def _cut_off(self, session: Session, now_s: float) -> None:
        self.gone(session.token, now_s)
        self._actions.append(Hang(session.token))

    def tick(self, now_s: float) -> None:
        """Call this several times a second: forget what never came, and devices that fell silent."""
        for session in self._sessions:
            late = [
                sequence for sequence, work in session.expected.items() if now_s > work.deadline_s + GRACE_S
            ]
            for sequence in late:
                del session.expected[sequence]
            if now_s - session.heard_s > SILENCE_S:
                self._cut_off(session, now_s)

    def drain(self) -> None:
        """Take no new tasks; those that are decided still count on the edge."""
        if not self.draining:
            self.draining = True
            self._actions.extend(Say(session.token, Closing()) for session in self._sessions)

    def wants_policy(self, version: int) -> bool:
        """Whether the system is still the one of that `Remake`."""
        return version == self._version

    def policy_made(self, version: int, policy: Policy) -> None:
        """A policy for a `Remake` is there; one for a system that has changed since is not used."""
        if self.wants_policy(version):
            self._policy = policy
            for session in self._sessions:
                self._actions.extend(self._foresight.lone(session))

    def _remake(self) -> None:
        self._version += 1
        self._policy = None
        self._tell(self._foresight.withdraw())
        system = self._forecast.system
        if system is not None:
            self._actions.append(Remake(self._version, system))


def _handed_over(work: Work) -> Crossed:
    """What has crossed for a task, which the worker now has."""
    crossed, work.crossed = work.crossed, None
    assert crossed is not None
    return crossed


def _codec_of(upload: Upload | CodedUpload) -> str:
    return upload.codec if isinstance(upload, CodedUpload) else UNCODED


def _why_not_expected(session: Session, work: Work | None, upload: Upload | CodedUpload) -> Refusal:
    if work is None and upload.sequence in session.taken:
        return Refusal.REPEATED
    return Refusal.EXPIRED if work is None and upload.remaining_s < 0 else Refusal.UNKNOWN_TASK
