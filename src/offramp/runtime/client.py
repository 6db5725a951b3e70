"""A program that has inputs and computes nothing of the model itself: the edge does, from the first layer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from offramp.model.tensors import Array, TensorSpec, check_tensors
from offramp.runtime.device_session import Handlers, Session, SessionEndedError, SessionRefusedError
from offramp.runtime.protocol import (
    VERSION,
    Declined,
    Hello,
    Offer,
    Refusal,
    Served,
    ToUploader,
    Welcome,
    check_name,
    encode,
    largest_frame,
    wires_of,
)

NO_PROCESSOR = 1e6
"""The slowdown that such a device claims: no cut but the first is ever worth deciding on."""
CLAIMED_BYTES_PER_S = 1e9
_OPENING_S = 5.0


class TaskRefusedError(Exception):
    """The edge does not compute a task; `reason` says why."""

    def __init__(self, reason: Refusal) -> None:
        super().__init__(str(reason))
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Inference:
    """What the edge has made of a task: the exit that it chose, its logits (n, classes), and seconds there."""

    exit: int
    logits: Array
    waited_s: float
    computed_s: float


class EdgeClient:
    """`open`, then any number of `infer` at a time, then `close`. Each task crosses once, and its answer once.

    Args:
        address: HOST:PORT; plain text, so of this machine or a network that is trusted.
        name: of this client, one of a kind on its edge.
        model_sha256, inputs: of the model, as in the edge's bundle.
        max_size: most inputs in one task.
    """

    def __init__(
        self, address: str, name: str, model_sha256: str, inputs: Sequence[TensorSpec], max_size: int = 32
    ) -> None:
        check_name(name)
        self._inputs = tuple(inputs)
        hello = Hello(
            VERSION,
            name,
            time.time_ns() // 1_000_000,  # counts upwards from start to start
            model_sha256,
            NO_PROCESSOR,
            CLAIMED_BYTES_PER_S,
            0.0,
            (),
            True,
        )
        self._session = Session(
            address,
            hello,
            Handlers(self._opened, lambda message: None, self._heard, lambda silent: None),
            time.monotonic,
            max_frame_bytes=largest_frame([self._inputs], max_size),
            credentials=None,
            opening_s=_OPENING_S,
        )
        self._sequence = 0
        self._asked: dict[int, asyncio.Future[Inference]] = {}

    async def open(self) -> None:
        """Connect. Raises ConnectionError if there is no edge, OfframpError if it does not take this client."""
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._running = asyncio.ensure_future(self._session.run())
        await asyncio.wait({self._running, self._ready}, return_when=asyncio.FIRST_COMPLETED)
        if self._running.done():
            try:
                self._running.result()
            except SessionEndedError as error:
                raise ConnectionError(f"no edge: {error}") from None
            except SessionRefusedError as error:
                raise error.as_input_error() from None
        self._running.add_done_callback(self._ended)

    async def infer(self, tensors: Mapping[str, Array], budget_s: float) -> Inference:
        """The answer for inputs by name, which is wanted within `budget_s` seconds.

        Raises TaskRefusedError, OfframpError if the inputs are not the model's, ConnectionError if the edge is lost.
        """
        size = check_tensors(tensors, self._inputs)
        if self._running.done():
            raise ConnectionError("the edge is lost")
        sequence, self._sequence = self._sequence, self._sequence + 1
        asked: asyncio.Future[Inference] = asyncio.get_running_loop().create_future()
        self._asked[sequence] = asked
        self._session.send_frame(encode(Offer(sequence, size, budget_s, budget_s, wires_of(tensors))))
        try:
            return await asked
        finally:
            self._asked.pop(sequence, None)

    async def close(self) -> None:
        """End the session; what is still asked for raises ConnectionError."""
        self._session.finish()
        await asyncio.wait({self._running}, timeout=1.0)
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)

    def _opened(self, welcome: Welcome) -> None:
        self._ready.set_result(None)

    def _heard(self, message: ToUploader) -> None:
        asked = self._asked.get(message.sequence)
        if asked is None or asked.done():
            return
        if isinstance(message, Served):
            wire = message.logits
            logits = np.frombuffer(wire.data, np.dtype(wire.dtype).newbyteorder("<")).reshape(wire.shape)
            asked.set_result(Inference(message.exit, logits, message.waited_s, message.computed_s))
        elif isinstance(message, Declined):
            asked.set_exception(TaskRefusedError(message.reason))

    def _ended(self, running: asyncio.Future[None]) -> None:
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(ConnectionError("the edge is lost"))
