"""The edge as a state machine: messages and instants in, actions out. No input or output, no clock of its own."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from offramp.equations import on_time
from offramp.model.tensors import Array, TensorSpec
from offramp.observation import Observation
from offramp.options import System
from offramp.policies import Policy
from offramp.runtime.forecast import Forecast, Peer
from offramp.runtime.protocol import (
    VERSION,
    Announce,
    Answer,
    Bye,
    Closing,
    Declined,
    FromDevice,
    Hello,
    Message,
    Ping,
    Pong,
    ProtocolError,
    Refusal,
    Refused,
    Upload,
    Verdict,
    Welcome,
    Withdraw,
    arrays_of,
    fits,
    wire_of,
)
from offramp.state import EdgeJob, EdgeQueue
from offramp.task import DROP, Decision

GRACE_S = 1.0
"""How long after its deadline a decided task may still reach the edge before it is forgotten."""
SILENCE_S = 2.0
"""A device that has said nothing for so long is taken for gone: it pings several times a second."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the edge holds and takes at most.

    Attributes:
        devices: sessions at a time.
        queue, queue_per_device: decided tasks that are not computed yet.
        announcements_per_s: of one device, over a second.
        max_size: inputs in one task.
        fit: share of a tail's predicted time that must be left before the deadline for it to be started.
    """

    devices: int = 1024
    queue: int = 256
    queue_per_device: int = 64
    announcements_per_s: float = 500.0
    max_size: int = 64
    fit: float = 0.8


@dataclass(frozen=True, slots=True)
class Say:
    """Send a control message to a session."""

    session: bytes
    message: Message


@dataclass(frozen=True, slots=True)
class Reply:
    """Send a message on a session's stream of tensors."""

    session: bytes
    message: Message


@dataclass(frozen=True, slots=True)
class Run:
    """Compute the layers behind a cut; then call `EdgeCore.computed`."""

    work: Work
    tensors: dict[str, Array]


@dataclass(frozen=True, slots=True)
class Hang:
    """Close a session's streams."""

    session: bytes


@dataclass(frozen=True, slots=True)
class Remake:
    """Make a policy for a changed system; then call `EdgeCore.policy_made` with this version."""

    version: int
    system: System


Action = Say | Reply | Run | Hang | Remake


@dataclass(slots=True, eq=False)
class Work:
    """A decided task, from the verdict until the edge has no more part in it. Instants on the edge's clock."""

    session: bytes
    sequence: int
    exit: int
    cut: int
    size: int
    tail_s: float
    arrival_s: float
    deadline_s: float
    tensors: dict[str, Array] = field(default_factory=dict)
    start_s: float = np.nan


@dataclass(slots=True)
class Session:
    """One device's connection."""

    token: bytes
    epoch: int
    peer: Peer
    heard_s: float
    allowance: float
    last: int = -1  # greatest sequence announced
    expected: dict[int, Work] = field(default_factory=dict)


@dataclass(slots=True)
class Counts:
    """What the edge has done so far."""

    announced: int = 0
    decided: int = 0
    turned_away: dict[Refusal, int] = field(default_factory=dict)
    chosen: dict[tuple[int, int], int] = field(default_factory=dict)
    answered: int = 0
    declined: dict[Refusal, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        chosen = {f"{exit}/{cut}": number for (exit, cut), number in self.chosen.items()}
        return asdict(self) | {"chosen": chosen}


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
        workers: int = 1,
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
        self._workers = workers
        self._limits = limits or Limits()
        self._sessions: dict[bytes, Session] = {}
        self._last: dict[str, tuple[int, int]] = {}
        self._waiting: deque[Work] = deque()
        self._running: list[Work] = []
        self.draining = False
        self._actions: list[Action] = []

    def take(self) -> list[Action]:
        """The actions since the last call, in order."""
        actions, self._actions = self._actions, []
        return actions

    @property
    def idle(self) -> bool:
        """Whether nothing is decided, waiting or running."""
        return not (
            self._waiting or self._running or any(session.expected for session in self._sessions.values())
        )

    @property
    def waiting(self) -> int:
        """Uploads that wait for a worker."""
        return len(self._waiting)

    @property
    def devices(self) -> int:
        """Connected devices."""
        return len(self._sessions)

    def hello(self, hello: Hello, now_s: float) -> bytes | Refused:
        """Open a session; its token, or why not."""
        refused = self._refuse(hello, now_s)
        if refused is not None:
            return refused
        token = secrets.token_bytes(16)
        session = Session(
            token, hello.epoch, self._forecast.join(hello), now_s, self._limits.announcements_per_s
        )
        epoch, last = self._last.get(hello.device, (hello.epoch, -1))
        if epoch == hello.epoch:
            session.last = last
        self._sessions[token] = session
        self._remake()
        gain = self._forecast.gain
        welcome = Welcome(VERSION, token, self._policy_name, gain.accuracy_weight, gain.accuracy_slope)
        self._actions.append(Say(token, welcome))
        return token

    def _refuse(self, hello: Hello, now_s: float) -> Refused | None:
        if hello.version != VERSION:
            return Refused(Refusal.VERSION, str(hello.version), f"must be {VERSION}", "install one release")
        if hello.model_sha256 != self._model_sha256:
            return Refused(
                Refusal.MODEL,
                hello.model_sha256[:12],
                f"the edge serves {self._model_sha256[:12]}",
                "give both the same --bundle",
            )
        if self.draining:
            return Refused(Refusal.DRAINING, hello.device, "the edge is stopping", "try again later")
        for session in list(self._sessions.values()):
            if session.peer.name != hello.device:
                continue
            # The same start of the same device comes back before its old connection was seen to break.
            if session.epoch == hello.epoch:
                self.gone(session.token, now_s)
                self._actions.append(Hang(session.token))
            else:
                return Refused(
                    Refusal.ID_IN_USE, hello.device, "connected already", "give each device its own --id"
                )
        if len(self._sessions) >= self._limits.devices:
            return Refused(
                Refusal.FULL, str(len(self._sessions)), f"at most {self._limits.devices}", "add an edge"
            )
        return None

    def control(self, token: bytes, message: FromDevice, now_s: float) -> None:
        """A message of an open session. Raises ProtocolError if it is out of turn."""
        session = self._sessions.get(token)
        if session is None:
            return
        rate = self._limits.announcements_per_s
        session.allowance = min(rate, session.allowance + rate * (now_s - session.heard_s))
        session.heard_s = now_s
        match message:
            case Announce():
                self._announce(session, message, now_s)
            case Withdraw(sequence):
                session.expected.pop(sequence, None)
                self._waiting = deque(
                    work for work in self._waiting if work.session != token or work.sequence != sequence
                )
            case Ping(number):
                self._actions.append(Say(token, Pong(number)))
            case Bye():
                self.gone(token, now_s)
                self._actions.append(Hang(token))
            case Hello():
                raise ProtocolError("hello: the session is open already")

    def _announce(self, session: Session, announce: Announce, now_s: float) -> None:
        self.counts.announced += 1
        observation = self._forecast.observe(session.peer, announce, self._queue(now_s), now_s)
        reason = self._turn_away(session, announce)
        decision = DROP
        if reason is None:
            decision = (self._policy or self._interim).decide(observation)
            reason = Refusal.POLICY if decision.exit == 0 else None
        if reason is not None:
            self.counts.turned_away[reason] = self.counts.turned_away.get(reason, 0) + 1
            verdict = Verdict(announce.sequence, 0, 0, reason, 0.0, 0.0, 0.0, 0.0)
        else:
            verdict = self._accept(session, announce, observation, decision)
        session.peer.verdicts += 1
        self._actions.append(Say(session.token, verdict))

    def _turn_away(self, session: Session, announce: Announce) -> Refusal | None:
        if self.draining:
            return Refusal.DRAINING
        if announce.size > self._limits.max_size:
            return Refusal.TOO_LARGE
        # A task's key is (device, epoch, sequence), and a device counts upwards: nothing is decided twice.
        if announce.sequence <= session.last:
            return Refusal.REPEATED
        session.last = announce.sequence
        if session.allowance < 1 or len(session.expected) >= self._limits.queue_per_device:
            return Refusal.OVERLOADED
        session.allowance -= 1
        on_their_way = sum(len(each.expected) for each in self._sessions.values())
        if on_their_way + len(self._waiting) >= self._limits.queue:
            return Refusal.OVERLOADED
        return None

    def _accept(
        self, session: Session, announce: Announce, observation: Observation, decision: Decision
    ) -> Verdict:
        self.counts.decided += 1
        option = (decision.exit, decision.cut)
        self.counts.chosen[option] = self.counts.chosen.get(option, 0) + 1
        options, task = observation.options, observation.task
        row = options.index(decision.exit, decision.cut)
        timeline = observation.timeline()
        # An instant that is the same for all options is given once.
        instants = (float(np.broadcast_to(each, len(options))[row]) for each in timeline)
        predicted = [fits(instant_s - task.arrival_s) for instant_s in instants]
        self._forecast.commit(session.peer, observation, decision)
        if not options.local[row]:
            _, _, _, arrival_s = observation.network_arrivals()
            session.expected[announce.sequence] = Work(
                session.token,
                announce.sequence,
                decision.exit,
                decision.cut,
                announce.size,
                float(options.tail_s[row]),
                float(arrival_s[row]),
                task.arrival_s + announce.budget_s,
            )
        return Verdict(announce.sequence, decision.exit, decision.cut, None, *predicted)

    def upload(self, token: bytes, upload: Upload, now_s: float) -> None:
        """Tensors of a decided task have come."""
        session = self._sessions.get(token)
        if session is None:
            return
        work = session.expected.get(upload.sequence)
        if work is None or (work.exit, work.cut, work.size) != (upload.exit, upload.cut, upload.size):
            gone = work is None and upload.remaining_s < 0
            self._decline(token, upload.sequence, Refusal.EXPIRED if gone else Refusal.UNKNOWN_TASK)
            return
        del session.expected[upload.sequence]
        try:
            work.tensors = arrays_of(upload.tensors, self._boundary(work.exit, work.cut), work.size)
        except ProtocolError:
            self._decline(token, upload.sequence, Refusal.BAD_TENSORS)
            return
        work.arrival_s, work.deadline_s = now_s, now_s + upload.remaining_s
        self._waiting.append(work)
        self._start(now_s)

    def _start(self, now_s: float) -> None:
        while self._waiting and len(self._running) < self._workers:
            work = self._waiting.popleft()
            if not on_time(now_s, work.deadline_s):
                self._decline(work.session, work.sequence, Refusal.EXPIRED)
                continue
            if not on_time(now_s + self._limits.fit * work.tail_s, work.deadline_s):
                self._decline(work.session, work.sequence, Refusal.TOO_LATE)
                continue
            work.start_s = now_s
            self._running.append(work)
            tensors, work.tensors = work.tensors, {}
            self._actions.append(Run(work, tensors))

    def computed(self, work: Work, logits: tuple[str, Array] | None, now_s: float, computed_s: float) -> None:
        """A worker is done: the output's name and logits, or None if it failed."""
        self._running.remove(work)
        if logits is None:
            self._decline(work.session, work.sequence, Refusal.INTERNAL)
        else:
            self.counts.answered += 1
            waited_s = max(0.0, work.start_s - work.arrival_s)
            answer = Answer(work.sequence, wire_of(*logits), waited_s, computed_s)
            self._reply(work.session, answer)
            self._forecast.computed(self._forecast.tail_s(work.exit, work.cut, work.size), computed_s)
        self._start(now_s)

    def _decline(self, token: bytes, sequence: int, reason: Refusal) -> None:
        self.counts.declined[reason] = self.counts.declined.get(reason, 0) + 1
        self._reply(token, Declined(sequence, reason))

    def _reply(self, token: bytes, message: Message) -> None:
        if token in self._sessions:
            self._actions.append(Reply(token, message))

    def gone(self, token: bytes, now_s: float) -> None:
        """A session has ended: what its device had here is dropped, and its place is free."""
        session = self._sessions.pop(token, None)
        if session is None:
            return
        self._waiting = deque(work for work in self._waiting if work.session != token)
        self._remember(session)
        self._forecast.leave(session.peer.name)
        self._remake()
        self._start(now_s)

    def _remember(self, session: Session) -> None:
        """Keep what a device has announced, for when it comes back."""
        self._last.pop(session.peer.name, None)
        self._last[session.peer.name] = (session.epoch, session.last)
        if len(self._last) > 2 * self._limits.devices:
            del self._last[next(iter(self._last))]

    def tick(self, now_s: float) -> None:
        """Call this several times a second: forget what never came, and devices that fell silent."""
        for session in list(self._sessions.values()):
            late = [
                sequence for sequence, work in session.expected.items() if now_s > work.deadline_s + GRACE_S
            ]
            for sequence in late:
                del session.expected[sequence]
            if now_s - session.heard_s > SILENCE_S:
                self.gone(session.token, now_s)
                self._actions.append(Hang(session.token))

    def drain(self) -> None:
        """Take no new tasks; those that are decided still count on the edge."""
        if not self.draining:
            self.draining = True
            self._actions.extend(Say(token, Closing()) for token in self._sessions)

    def wants_policy(self, version: int) -> bool:
        """Whether the system is still the one of that `Remake`."""
        return version == self._version

    def policy_made(self, version: int, policy: Policy) -> None:
        """A policy for a `Remake` is there; one for a system that has changed since is not used."""
        if self.wants_policy(version):
            self._policy = policy

    def _remake(self) -> None:
        self._version += 1
        self._policy = None
        system = self._forecast.system
        if system is not None:
            self._actions.append(Remake(self._version, system))

    def _queue(self, now_s: float) -> EdgeQueue:
        """The edge's own work as the timing model sees it: what runs, what waits, what is on its way."""
        busy = [max(now_s, work.start_s + work.tail_s) for work in self._running]
        queue = EdgeQueue(self._workers, busy)
        order = 0
        for order, work in enumerate(self._waiting):
            queue.add(EdgeJob(work.arrival_s, order, work.tail_s, work.deadline_s, work.sequence))
        for session in self._sessions.values():
            for work in session.expected.values():
                order += 1
                arrival_s = max(work.arrival_s, now_s)
                queue.add(EdgeJob(arrival_s, order, work.tail_s, work.deadline_s, work.sequence))
        return queue
