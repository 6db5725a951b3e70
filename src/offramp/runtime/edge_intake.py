"""Decided tasks whose tensors have come to the edge: they wait for a worker, run, and are answered or declined."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from offramp.model.tensors import Array, TensorSpec
from offramp.runtime.client_protocol import Served
from offramp.runtime.edge_job import Action, Batch, Counts, Foresee, Reply, Run, Work
from offramp.runtime.edge_queue import WorkQueue
from offramp.runtime.edge_sessions import Session, Sessions
from offramp.runtime.processor import Coded, Crossed
from offramp.runtime.protocol import Answer, CodedUpload, Declined, Message, Refusal, Upload
from offramp.runtime.wire import ProtocolError, arrays_of, wire_of
from offramp.task import UNCODED

Boundary = Callable[[int, int], Sequence[TensorSpec]]
"""What crosses at a cut of an exit."""


class Intake:
    """Feeds the queue before the workers, and says what becomes of everything in it."""

    def __init__(
        self,
        boundary: Boundary,
        sessions: Sessions,
        queue: WorkQueue,
        counts: Counts,
        actions: list[Action],
    ) -> None:
        self._boundary = boundary
        self._sessions = sessions
        self._queue = queue
        self._counts = counts
        self._actions = actions

    def take(self, session: Session, work: Work, upload: Upload | CodedUpload, now_s: float) -> None:
        """What a task's device has sent is here: let it wait for a worker. What is coded is decoded by that."""
        session.taken.append(upload.sequence)
        session.last_here = max(session.last_here, upload.sequence)
        if isinstance(upload, CodedUpload):
            work.crossed = Coded(upload.codec, upload.payload, work.size)
        else:
            specs = self._boundary(work.decision.exit, work.decision.cut)
            try:
                work.crossed = arrays_of(upload.tensors, specs, work.size)
            except ProtocolError:
                self.decline(session.token, upload.sequence, Refusal.BAD_TENSORS)
                return
        work.arrival_s, work.deadline_s = now_s, now_s + upload.remaining_s
        self.add(work, now_s)

    def add(self, work: Work, now_s: float) -> None:
        """A task with everything that it needs waits for a worker."""
        self._queue.add(work)
        self.start(now_s)

    def start(self, now_s: float) -> None:
        """Have free workers begin with what waits, and decline what is too late for that."""
        for started in self._queue.start(now_s):
            if isinstance(started, Batch):
                self._actions.append(Run(started, tuple(map(_handed_over, started.works))))
            else:
                work, refusal = started
                self.decline(work.session, work.sequence, refusal)

    def computed(
        self, batch: Batch, made: Sequence[tuple[str, Array] | Refusal], now_s: float, computed_s: float
    ) -> None:
        """See `EdgeCore.computed`; what waits next is begun by `start`."""
        self._queue.done(batch, now_s)
        self._counts.runs += 1
        for work, logits in zip(batch.works, made, strict=True):
            if isinstance(logits, Refusal):
                self.decline(work.session, work.sequence, logits)
                continue
            self._counts.answered += 1
            waited_s = max(0.0, batch.start_s - work.arrival_s)
            answer = (wire_of(*logits), waited_s, computed_s)
            if work.offered:
                self.reply(work.session, Served(work.sequence, work.decision.exit, *answer))
            else:
                self.reply(work.session, Answer(work.sequence, *answer))
            if work.unasked_s is not None:
                self._actions.append(Foresee(work.session, work.size, work.unasked_s))

    def decline(self, token: bytes, sequence: int, reason: Refusal) -> None:
        """Say that a decided task is not computed; counted."""
        self._counts.declined[reason] = self._counts.declined.get(reason, 0) + 1
        self.reply(token, Declined(sequence, reason))

    def reply(self, token: bytes, message: Message) -> None:
        """Answer on a session's stream of tensors, if it is still open."""
        if token in self._sessions:
            self._actions.append(Reply(token, message))


def codec_of(upload: Upload | CodedUpload) -> str:
    """The codec of what has been sent."""
    return upload.codec if isinstance(upload, CodedUpload) else UNCODED


def why_not_expected(session: Session, work: Work | None, upload: Upload | CodedUpload) -> Refusal:
    """Why an upload is not that of a decided task."""
    if work is None and upload.sequence in session.taken:
        return Refusal.REPEATED
    return Refusal.EXPIRED if work is None and upload.remaining_s < 0 else Refusal.UNKNOWN_TASK


def _handed_over(work: Work) -> Crossed:
    """What has crossed for a task, which the worker now has."""
    crossed, work.crossed = work.crossed, None
    assert crossed is not None
    return crossed
