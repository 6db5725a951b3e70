"""The edge as a state machine: messages and instants in, actions out. No input or output, no clock of its own.

Sessions are here; what is decided is in `edge_deciding`, what has come in `edge_intake`.
"""

from __future__ import annotations

from collections.abc import Sequence

from offramp.model.tensors import Array
from offramp.policies import Policy
from offramp.runtime.client_protocol import Offer
from offramp.runtime.edge_deciding import Deciding
from offramp.runtime.edge_intake import Boundary, Intake, codec_of, why_not_expected
from offramp.runtime.edge_job import Action, Batch, Counts, Foresee, Hang, Reply, Say, Work
from offramp.runtime.edge_queue import WorkQueue
from offramp.runtime.edge_sessions import Limits, Session, Sessions
from offramp.runtime.forecast import Forecast, RunningSpeed
from offramp.runtime.protocol import (
    VERSION,
    Announce,
    Begun,
    Bye,
    Closing,
    CodedUpload,
    Declined,
    FromDevice,
    Hello,
    Ping,
    Pong,
    Refusal,
    Refused,
    Sending,
    Upload,
    Welcome,
    Withdraw,
)
from offramp.runtime.wire import ProtocolError, arrays_of
from offramp.task import Decision

GRACE_S = 1.0
"""How long after its deadline a decided task may still reach the edge before it is forgotten."""
SILENCE_S = 2.0
"""A device that has said nothing for so long is taken for gone: it pings several times a second."""


class EdgeCore:
    """Sessions, decisions and the queue. Every method takes the present instant and leaves actions in `take`."""

    def __init__(
        self,
        forecast: Forecast,
        boundary: Boundary,
        *,
        model_sha256: str,
        policy_name: str,
        interim: Policy,
        limits: Limits | None = None,
    ) -> None:
        self.counts = Counts()
        self.limits = limits or Limits()
        self._forecast = forecast
        self._boundary = boundary
        self._model_sha256 = model_sha256
        self._policy_name = policy_name
        self._actions: list[Action] = []
        self._sessions = Sessions(self.limits)
        self._queue = WorkQueue(forecast.network.edge_workers, self.limits.fit, forecast.batching())
        common = self._sessions, self._queue, self.counts, self._actions
        self._deciding = Deciding(forecast, interim, *common)
        self._intake = Intake(boundary, *common)

    def take(self) -> list[Action]:
        """The actions since the last call, in order."""
        actions = list(self._actions)
        self._actions.clear()
        return actions

    @property
    def idle(self) -> bool:
        """Whether nothing is decided, waiting or running."""
        return self._deciding.idle

    @property
    def draining(self) -> bool:
        """Whether new tasks are turned away."""
        return self._deciding.draining

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
        self._deciding.remake()
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
                self._deciding.announced(session, message, now_s)
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

    def foresee(self, asked: Foresee, now_s: float) -> None:
        """Decide a device's next task of a kind before it comes, unless there is something else to do by now."""
        self._deciding.foresee(asked, now_s)

    def upload_due_s(self, token: bytes, now_s: float) -> float | None:
        """When what a lone device has begun to upload should be here; None among several."""
        session = self._sessions.get(token)
        if session is None or self.devices > 1:
            return None
        link = session.peer.link
        return link.free_s(now_s) + link.belief.delay_s

    def ping(self, token: bytes, ping: Ping, now_s: float) -> None:
        """A sign of life is asked for on the stream of tensors, the way that a task is going to take."""
        session = self._sessions.get(token)
        if session is not None:
            self._sessions.heard(session, now_s)
            self._actions.append(Reply(token, Pong(ping.number)))

    def probe(self, token: bytes, now_s: float) -> None:
        """A probe has come."""
        session = self._sessions.get(token)
        if session is not None:
            session.peer.link.arrives(now_s)
            session.peer.link.believe(now_s)
            self._deciding.check(session)

    def upload(self, token: bytes, upload: Upload | CodedUpload, now_s: float) -> None:
        """Tensors of a decided task have come. What is coded is decoded by a worker, as part of its work."""
        session = self._sessions.get(token)
        if session is None:
            return
        session.peer.link.arrives(now_s)
        work = session.expected.get(upload.sequence)
        sent = (upload.exit, upload.cut, upload.size)
        if work is None or (work.decision.exit, work.decision.cut, work.size) != sent:
            self._intake.decline(token, upload.sequence, why_not_expected(session, work, upload))
            return
        if codec_of(upload) != work.decision.codec:
            self._intake.decline(token, upload.sequence, Refusal.CODEC)
            return
        del session.expected[upload.sequence]
        self._intake.take(session, work, upload, now_s)

    def begun(self, token: bytes, begun: Begun, now_s: float) -> None:
        """Tensors have come of a task that was not announced, since its device went by what stood."""
        session = self._sessions.get(token)
        if session is None:
            return
        upload = begun.upload
        session.peer.link.arrives(now_s)
        session.peer.acts(begun)
        self._sessions.heard(session, now_s)
        decision = Decision(upload.exit, upload.cut, codec_of(upload))
        tail_s = self._deciding.begun(session, upload, decision, now_s)
        if isinstance(tail_s, Refusal):
            self._intake.reply(token, Declined(upload.sequence, tail_s))
            return
        deadline_s = now_s + upload.remaining_s
        work = Work(token, upload.sequence, decision, upload.size, tail_s, now_s, deadline_s)
        work.unasked_s = begun.budget_s
        self._intake.take(session, work, upload, now_s)

    def offer(self, token: bytes, offer: Offer, now_s: float) -> None:
        """A task has come with its input: it is decided and, if it is taken, waits for a worker at once."""
        session = self._sessions.get(token)
        if session is None:
            return
        self._sessions.heard(session, now_s)
        taken = self._deciding.offered(session, offer, now_s)
        if isinstance(taken, Refusal):
            self._intake.reply(token, Declined(offer.sequence, taken))
            return
        decision, tail_s = taken
        try:
            crossed = arrays_of(offer.tensors, self._boundary(decision.exit, 0), offer.size)
        except ProtocolError:
            self._intake.decline(token, offer.sequence, Refusal.BAD_TENSORS)
            return
        deadline_s = now_s + offer.remaining_s
        self._intake.add(
            Work(
                token, offer.sequence, decision, offer.size, tail_s, now_s, deadline_s, crossed, offered=True
            ),
            now_s,
        )

    def apart(self, batch: Batch, now_s: float) -> None:
        """A thread of its own computes a batch of a `Run`: it may be given the next before it is done."""
        batch.apart = True
        self._intake.start(now_s)

    def computed(
        self, batch: Batch, made: Sequence[tuple[str, Array] | Refusal], now_s: float, computed_s: float
    ) -> None:
        """A worker is done: for each of the batch the output's name and logits, or why there are none."""
        self._intake.computed(batch, made, now_s, computed_s)
        for work, logits in zip(batch.works, made, strict=True):
            session = self._sessions.get(work.session)
            if session is not None and not isinstance(logits, Refusal):
                self._deciding.rest(session)
        self._intake.start(now_s)

    def took(self, batch: Batch, computed_s: float) -> None:
        """How long a worker took for a batch that is answered. For behind the answers: nobody waits for it."""
        self._forecast.computed(self._forecast.batch_s(batch.tasks), computed_s)

    def gone(self, token: bytes, now_s: float) -> None:
        """A session has ended: what its device had here is dropped, and its place is free."""
        session = self._sessions.close(token)
        if session is None:
            return
        self._queue.withdraw(token)
        self._forecast.leave(session.peer.name)
        self._deciding.remake()
        self._intake.start(now_s)

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
            self._deciding.draining = True
            self._actions.extend(Say(session.token, Closing()) for session in self._sessions)

    def wants_policy(self, version: int) -> bool:
        """Whether the system is still the one of that `Remake`."""
        return self._deciding.wants_policy(version)

    def policy_made(self, version: int, policy: Policy) -> None:
        """A policy for a `Remake` is there; one for a system that has changed since is not used."""
        self._deciding.policy_made(version, policy)
