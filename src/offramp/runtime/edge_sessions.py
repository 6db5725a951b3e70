"""Who is connected to the edge, and how much of it each may take."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from offramp.runtime.client_protocol import Offer
from offramp.runtime.edge_job import Work
from offramp.runtime.forecast import Peer
from offramp.runtime.protocol import (
    VERSION,
    Announce,
    CodedUpload,
    Hello,
    Refusal,
    Refused,
    Upload,
)
from offramp.task import Decision

CONNECTIONS = 2
"""A device's: one for control, one for tensors."""
SPARE_DEVICES = 32
OFFER = 0.1
"""What a task of a program on this machine costs of an announcement's allowance: no link slows such a program down, and
it may be all that the edge is for."""
TAKEN = 256
"""Uploads of a session that are remembered, so that one that comes again is known as such."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the edge holds and takes at most.

    Attributes:
        devices: sessions at a time.
        queue, queue_per_device: decided tasks that are not computed yet.
        announcements_per_s: of one device, over a second; of a program on this machine `1 / OFFER` times as many.
        max_size: inputs in one task.
        fit: share of a tail's predicted time that must be left before the deadline for it to be started.
    """

    devices: int = 512
    queue: int = 256
    queue_per_device: int = 64
    announcements_per_s: float = 500.0
    max_size: int = 64
    fit: float = 0.8

    @property
    def connections(self) -> int:
        """Connections at a time, with some room for those that must be told that they are too many."""
        return CONNECTIONS * (self.devices + SPARE_DEVICES)


@dataclass(slots=True)
class Session:
    """One device's connection."""

    token: bytes
    epoch: int
    peer: Peer
    heard_s: float
    allowance: float
    last: int = -1  # greatest sequence announced or begun
    last_here: int = -1  # greatest sequence whose upload has come
    expected: dict[int, Work] = field(default_factory=dict)
    taken: deque[int] = field(default_factory=lambda: deque(maxlen=TAKEN))
    kinds: tuple[tuple[int, float], ...] = ()  # sizes and budgets of tasks that the device may have
    stood: set[Decision] = field(default_factory=set)  # what the device was let do without asking


class Sessions:
    """The open sessions by their tokens, and what closed ones have announced."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._open: dict[bytes, Session] = {}
        self._last: dict[str, tuple[int, int, int]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, token: bytes) -> bool:
        return token in self._open

    def __iter__(self) -> Iterator[Session]:
        """The open ones, in the order in which they came; any may be closed meanwhile."""
        return iter(list(self._open.values()))

    def get(self, token: bytes) -> Session | None:
        """The open session with this token."""
        return self._open.get(token)

    def of(self, device: str) -> Session | None:
        """The open session of a device."""
        return next((session for session in self._open.values() if session.peer.name == device), None)

    def refuse(
        self, hello: Hello, model_sha256: str, codecs: frozenset[str], *, draining: bool
    ) -> Refused | None:
        """Why a device is not let in by an edge that serves this model and may decide on these codecs."""
        if hello.version != VERSION:
            return Refused(Refusal.VERSION, str(hello.version), f"must be {VERSION}", "install one release")
        if hello.model_sha256 != model_sha256:
            return Refused(
                Refusal.MODEL,
                hello.model_sha256[:12],
                f"the edge serves {model_sha256[:12]}",
                "give both the same --bundle",
            )
        unknown = sorted(codecs.difference(hello.codecs))
        if unknown:
            return Refused(
                Refusal.CODEC,
                ", ".join(unknown),
                f"the device knows {', '.join(hello.codecs) or 'none'}",
                "install offramp[compress] and the same bundle there, or give the edge other --codecs",
            )
        if draining:
            return Refused(Refusal.DRAINING, hello.device, "the edge is stopping", "try again later")
        session = self.of(hello.device)
        if session is not None and session.epoch != hello.epoch:
            return Refused(
                Refusal.ID_IN_USE, hello.device, "connected already", "give each device its own --id"
            )
        # The same start of the same device takes its own place.
        if session is None and len(self) >= self._limits.devices:
            return Refused(Refusal.FULL, str(len(self)), f"at most {self._limits.devices}", "add an edge")
        return None

    def open(self, hello: Hello, peer: Peer, now_s: float) -> Session:
        """A new session; it goes on counting where the same start of the device left off."""
        session = Session(secrets.token_bytes(16), hello.epoch, peer, now_s, self._limits.announcements_per_s)
        epoch, last, last_here = self._last.get(hello.device, (hello.epoch, -1, -1))
        if epoch == hello.epoch:
            session.last, session.last_here = last, last_here
        session.kinds = tuple(kind for kind in hello.kinds if kind[0] <= self._limits.max_size)
        self._open[session.token] = session
        return session

    def close(self, token: bytes) -> Session | None:
        """Forget a session, but for what its device has announced; None if it is not open."""
        session = self._open.pop(token, None)
        if session is not None:
            self._last.pop(session.peer.name, None)
            self._last[session.peer.name] = session.epoch, session.last, session.last_here
            if len(self._last) > 2 * self._limits.devices:
                del self._last[next(iter(self._last))]
        return session

    def heard(self, session: Session, now_s: float) -> None:
        """A sign of life: the allowance of announcements grows with the time since the last."""
        rate = self._limits.announcements_per_s
        session.allowance = min(rate, session.allowance + rate * (now_s - session.heard_s))
        session.heard_s = now_s

    def turn_away(
        self, session: Session, announce: Announce | Offer | Upload | CodedUpload, own: int, waiting: int
    ) -> Refusal | None:
        """Why a task that is announced, or comes without, is not taken; else it is counted as announced.

        `own` of the device's tasks are on their way or wait, and `waiting` of all devices' wait.
        """
        if announce.size > self._limits.max_size:
            return Refusal.TOO_LARGE
        # A task's key is (device, epoch, sequence), and a device counts upwards: nothing is decided twice. What comes
        # unannounced may have been overtaken by later announcements, but not by later uploads.
        unasked = isinstance(announce, Upload | CodedUpload)
        if announce.sequence <= (session.last_here if unasked else session.last):
            return Refusal.REPEATED
        if unasked and announce.sequence in session.expected:
            return Refusal.REPEATED
        session.last = max(session.last, announce.sequence)
        costs = OFFER if isinstance(announce, Offer) else 1.0
        if session.allowance < costs or own >= self._limits.queue_per_device:
            return Refusal.OVERLOADED
        session.allowance -= costs
        on_their_way = sum(len(each.expected) for each in self._open.values())
        return Refusal.OVERLOADED if on_their_way + waiting >= self._limits.queue else None
