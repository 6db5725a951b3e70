"""A program beside the edge that has inputs and computes nothing of the model: the edge does, from the first layer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from offramp.model.tensors import Array, TensorSpec, check_tensors
from offramp.runtime.client_protocol import Frames, Offer, Served, decode_to_client, framed
from offramp.runtime.device_session import HEARTBEAT_S, LOST_S, SessionRefusedError
from offramp.runtime.listening import HOST
from offramp.runtime.protocol import (
    CONTROL_BYTES,
    VERSION,
    Bye,
    Declined,
    Hello,
    Message,
    Ping,
    Refusal,
    Refused,
    Welcome,
    check_name,
)
from offramp.runtime.wire import ProtocolError, wires_of

NO_PROCESSOR = 1e6
"""The slowdown that such a program claims: no cut but the first is ever worth deciding on."""
CLAIMED_BYTES_PER_S = 1e9
_OPENING_S = 5.0
_LARGEST_ANSWER_BYTES = 1 << 26


class TaskRefusedError(Exception):
    """The edge does not compute a task; `reason` says why."""

    def __init__(self, reason: Refusal) -> None:
        super().__init__(str(reason))
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Inference:
    """What the edge has made of a task: the exit that was decided, its logits (n, classes), and seconds there."""

    exit: int
    logits: Array
    waited_s: float
    computed_s: float


class EdgeClient(asyncio.BufferedProtocol):
    """`open`, then any number of `infer` at a time, then `close`. A task is one message there and one back.

    Args:
        port: the edge's `--client-port`, on this machine.
        name: of this client, one of a kind on its edge.
        model_sha256, inputs: of the model, as in the edge's bundle.
        margin: share of each budget that the edge's plans leave free, in 0..1: a plan that just meets its deadline
            misses it about as often as not.
    """

    def __init__(
        self, port: int, name: str, model_sha256: str, inputs: Sequence[TensorSpec], margin: float = 0.15
    ) -> None:
        check_name(name)
        self._port = port
        self._name = name
        self._model_sha256 = model_sha256
        self._inputs = tuple(inputs)
        self._margin = margin
        self._frames = Frames(_LARGEST_ANSWER_BYTES + CONTROL_BYTES)
        self._transport: asyncio.Transport | None = None
        self._heartbeat: asyncio.Task[None] | None = None
        self._sequence = 0
        self._heard_s = 0.0
        self._asked: dict[int, asyncio.Future[Inference]] = {}

    async def open(self) -> None:
        """Connect. Raises ConnectionError if there is no edge, OfframpError if it does not take this client."""
        loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = loop.create_future()
        await loop.create_connection(lambda: self, HOST, self._port)
        epoch = time.time_ns() // 1_000_000  # counts upwards from start to start
        self._send(
            Hello(
                VERSION,
                self._name,
                epoch,
                self._model_sha256,
                NO_PROCESSOR,
                CLAIMED_BYTES_PER_S,
                0.0,
                (),
                True,
            )
        )
        try:
            await asyncio.wait_for(self._opened, _OPENING_S)
        except TimeoutError:
            if self._transport is not None:
                self._transport.abort()
            raise ConnectionError("the edge does not answer") from None
        except SessionRefusedError as error:
            raise error.as_input_error() from None
        self._heartbeat = asyncio.ensure_future(self._live())

    async def infer(self, tensors: Mapping[str, Array], budget_s: float) -> Inference:
        """The answer for inputs by name, which is wanted within `budget_s` seconds.

        Raises TaskRefusedError, OfframpError if the inputs are not the model's, ConnectionError if the edge is lost.
        """
        size = check_tensors(tensors, self._inputs)
        sequence, self._sequence = self._sequence, self._sequence + 1
        asked: asyncio.Future[Inference] = asyncio.get_running_loop().create_future()
        self._asked[sequence] = asked
        try:
            self._send(Offer(sequence, size, budget_s, budget_s, self._margin, wires_of(tensors)))
            return await asked
        finally:
            self._asked.pop(sequence, None)

    async def close(self) -> None:
        """End the session; what is still asked for raises ConnectionError."""
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        if self._transport is not None:
            self._send(Bye())
            self._transport.close()

    async def _live(self) -> None:
        loop, number = asyncio.get_running_loop(), 0
        self._heard_s = loop.time()
        while self._transport is not None:
            before_s = loop.time()
            self._send(Ping(number))
            number += 1
            await asyncio.sleep(HEARTBEAT_S)
            held_up_s = loop.time() - before_s - HEARTBEAT_S
            if held_up_s > HEARTBEAT_S:
                self._heard_s += held_up_s  # what has held this very process up is not the edge's silence
            if self._transport is not None and loop.time() - self._heard_s > LOST_S:
                self._transport.abort()

    def _send(self, message: Message) -> None:
        if self._transport is None:
            raise ConnectionError("the edge is lost")
        self._transport.write(framed(message))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BufferedProtocol`."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.BufferedProtocol`."""
        self._transport = None
        lost = ConnectionError("the edge is lost")
        if not self._opened.done():
            self._opened.set_exception(lost)
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(lost)

    def get_buffer(self, sizehint: int) -> memoryview:
        """See `asyncio.BufferedProtocol`."""
        return self._frames.room()

    def buffer_updated(self, nbytes: int) -> None:
        """See `asyncio.BufferedProtocol`."""
        self._heard_s = asyncio.get_running_loop().time()
        try:
            for frame in self._frames.filled(nbytes):
                self._take(frame)
        except ProtocolError:
            assert self._transport is not None
            self._transport.abort()

    def _take(self, frame: bytes) -> None:
        message = decode_to_client(frame)
        if isinstance(message, Welcome) and not self._opened.done():
            self._opened.set_result(None)
        elif isinstance(message, Refused) and not self._opened.done():
            self._opened.set_exception(SessionRefusedError(message))
        elif isinstance(message, Served | Declined):
            asked = self._asked.get(message.sequence)
            if asked is None or asked.done():
                return
            if isinstance(message, Declined):
                asked.set_exception(TaskRefusedError(message.reason))
                return
            wire = message.logits
            logits = np.frombuffer(wire.data, np.dtype(wire.dtype).newbyteorder("<")).reshape(wire.shape)
            asked.set_result(Inference(message.exit, logits, message.waited_s, message.computed_s))
