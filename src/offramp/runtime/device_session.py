"""One connection of a device to its edge: two streams, a heartbeat, and what goes wrong with them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc.aio

from offramp.errors import OfframpError
from offramp.runtime.protocol import (
    Attach,
    Hello,
    Message,
    Ping,
    Pong,
    Refused,
    Result,
    ToDevice,
    Welcome,
    decode_to_device,
    decode_to_uploader,
    encode,
)
from offramp.runtime.transport import CONTROL, SERVICE, TENSORS, open_channel
from offramp.runtime.wire import ProtocolError

if TYPE_CHECKING:
    from offramp.runtime.certificates import Identity

HEARTBEAT_S = 0.15
SILENT_S = 0.5
"""Without a sign of life for so long, the device plans without its edge."""
LOST_S = 1.5
"""Without a sign of life for so long, the session is given up."""


class SessionEndedError(Exception):
    """The connection is no more."""


class SessionRefusedError(Exception):
    """The edge does not take this device."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(str(refused.reason))
        self.refused = refused

    def as_input_error(self) -> OfframpError:
        """For the person who started the device."""
        refused = self.refused
        return OfframpError(str(refused.reason), refused.value, refused.allowed, refused.remedy)


@dataclass(frozen=True, slots=True)
class Handlers:
    """Who is told what; `silent` says whether signs of life are missing."""

    opened: Callable[[Welcome], None]
    control: Callable[[ToDevice], None]
    tensors: Callable[[Result], None]
    silent: Callable[[bool], None]


class Session:
    """Runs one connection from `Hello` to its end."""

    def __init__(
        self,
        address: str,
        hello: Hello,
        handlers: Handlers,
        clock: Callable[[], float],
        *,
        max_frame_bytes: int,
        credentials: Identity | None,
        opening_s: float,
    ) -> None:
        self._address = address
        self._hello = hello
        self._handlers = handlers
        self._clock = clock
        self._max_frame_bytes = max_frame_bytes
        self._credentials = credentials
        self._opening_s = opening_s
        self._control_out: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._tensors_out: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._heard_s = clock()

    def say(self, message: Message) -> None:
        """Send a control message."""
        self._control_out.put_nowait(encode(message))

    def send_frame(self, frame: bytes) -> None:
        """Send an encoded message on the stream of tensors."""
        self._tensors_out.put_nowait(frame)

    def finish(self) -> None:
        """End the session when what is queued has been sent."""
        self._control_out.put_nowait(None)

    async def run(self) -> None:
        """Until the end: returns after `finish`, else raises SessionEndedError or SessionRefusedError."""
        channels = [open_channel(self._address, self._max_frame_bytes, self._credentials) for _ in range(2)]
        try:
            await self._run(*channels)
        except (TimeoutError, asyncio.InvalidStateError, grpc.aio.AioRpcError, grpc.aio.UsageError) as error:
            raise SessionEndedError(type(error).__name__) from None
        except ProtocolError as error:
            raise SessionEndedError(f"the edge speaks another language: {error}") from None
        finally:
            await asyncio.gather(*(channel.close() for channel in channels), return_exceptions=True)

    async def _open(self, control_channel: Any, tensors_channel: Any) -> tuple[Any, Any, Welcome]:
        """Both streams and the edge's welcome."""
        control = control_channel.stream_stream(f"/{SERVICE}/{CONTROL}")()
        await control.write(encode(self._hello))
        frame = await control.read()
        if not isinstance(frame, bytes):
            raise SessionEndedError("no welcome")
        first = decode_to_device(frame)
        if isinstance(first, Refused):
            raise SessionRefusedError(first)
        if not isinstance(first, Welcome):
            raise ProtocolError("no welcome")
        tensors = tensors_channel.stream_stream(f"/{SERVICE}/{TENSORS}")()
        await tensors.write(encode(Attach(first.session)))
        return control, tensors, first

    async def _run(self, control_channel: Any, tensors_channel: Any) -> None:
        # Where packets are lost without a word, connecting takes as long as it is let.
        opening = self._open(control_channel, tensors_channel)
        control, tensors, first = await asyncio.wait_for(opening, self._opening_s)
        self._heard_s = self._clock()
        self._handlers.opened(first)
        writer = asyncio.ensure_future(self._write(control, self._control_out))
        others = [
            asyncio.ensure_future(work)
            for work in (
                self._read_control(control),
                self._read_tensors(tensors),
                self._write(tensors, self._tensors_out),
                self._heartbeat(),
            )
        ]
        try:
            done, _ = await asyncio.wait([writer, *others], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if not writer.done():
                raise SessionEndedError("the edge closed the session")
            await control.done_writing()
        finally:
            for task in (writer, *others):
                task.cancel()
            await asyncio.gather(writer, *others, return_exceptions=True)

    async def _write(self, call: Any, outbox: asyncio.Queue[bytes | None]) -> None:
        while (frame := await outbox.get()) is not None:
            await call.write(frame)

    async def _read_control(self, call: Any) -> None:
        while isinstance(frame := await call.read(), bytes):
            self._alive()
            message = decode_to_device(frame)
            if isinstance(message, Refused):
                raise SessionRefusedError(message)
            if not isinstance(message, Pong):
                self._handlers.control(message)

    async def _read_tensors(self, call: Any) -> None:
        while isinstance(frame := await call.read(), bytes):
            self._alive()
            message = decode_to_uploader(frame)
            if not isinstance(message, Pong):
                self._handlers.tensors(message)

    def _alive(self) -> None:
        self._heard_s = self._clock()
        self._handlers.silent(False)

    async def _heartbeat(self) -> None:
        number = 0
        while True:
            before_s = self._clock()
            self.say(Ping(number))
            number += 1
            await asyncio.sleep(HEARTBEAT_S)
            now_s = self._clock()
            # If this very process was held up, the edge is not to blame: what it said waits to be read.
            if now_s - before_s > 2 * HEARTBEAT_S:
                self._heard_s += now_s - before_s - HEARTBEAT_S
            silence_s = now_s - self._heard_s
            if silence_s > LOST_S:
                raise SessionEndedError(f"no sign of life for {silence_s:.1f} s")
            if silence_s > SILENT_S:
                self._handlers.silent(True)
