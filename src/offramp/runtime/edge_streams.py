"""The streams of one session on the edge's side: what is to be sent, and how a stream ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any

import grpc.aio

from offramp.runtime.protocol import CONTROL_BYTES, Message, encode
from offramp.runtime.wire import ProtocolError

OUTBOX = 1024
"""Messages that may wait for a device that does not read; then it is cut off."""


@dataclass(slots=True, eq=False)
class Streams:
    """What a session's streams are to send; None ends the stream."""

    control: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(OUTBOX))
    tensors: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(OUTBOX))
    readers: set[asyncio.Task[Any]] = field(default_factory=set)
    device: str = ""
    certificate: bytes = b""
    attached: bool = False


def small(frame: bytes) -> bytes:
    """A control message's frame. Raises ProtocolError if it is too long for one."""
    if len(frame) > CONTROL_BYTES:
        raise ProtocolError(f"control message of {len(frame)} bytes: at most {CONTROL_BYTES}")
    return frame


async def write(context: Any, outbox: asyncio.Queue[bytes | None]) -> None:
    """Send what is put into the outbox, until None is."""
    while (frame := await outbox.get()) is not None:
        await context.write(frame)


async def both(reader: Awaitable[None], writer: Awaitable[None], streams: Streams) -> None:
    """Read and write until either ends; what it raised is raised."""
    tasks = {asyncio.ensure_future(reader), asyncio.ensure_future(writer)}
    streams.readers |= tasks
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if not task.cancelled():
                task.result()
    finally:
        streams.readers -= tasks
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def last_word(context: Any, message: Message) -> None:
    """Send a message if that can still be done."""
    with contextlib.suppress(grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
        await context.write(encode(message))


def end(outbox: asyncio.Queue[bytes | None]) -> None:
    """Let the stream end now, whatever still waits to be sent."""
    while outbox.full():
        outbox.get_nowait()
    outbox.put_nowait(None)
