"""Peers that mean ill, over real connections to a real edge; what each of their messages is told."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import numpy as np
import zstandard

from offramp.model.bundle import Bundle, load_bundle
from offramp.model.codecs import CODECS, find_codec
from offramp.model.tensors import TensorSpec
from offramp.runtime.edge_main import cap_of
from offramp.runtime.protocol import (
    VERSION,
    Announce,
    Answer,
    Attach,
    CodedUpload,
    Declined,
    Hello,
    Message,
    Ping,
    Refused,
    Upload,
    Verdict,
    Welcome,
    decode_to_device,
    decode_to_uploader,
    encode,
)
from offramp.runtime.wire import ProtocolError, WireTensor, wires_of
from offramp.task import UNCODED
from plant.hostile_frames import bent_frames, honest

AT_ONCE = 16
ANSWER_S = 8.0
TYPED_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNIMPLEMENTED,
}
OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
SIZE, BUDGET_S = 2, 3.0
BAD_UPLOADS = ("shape", "type", "length", "name", "none", "twice", "exit", "cut", "size", "codec")
NOT_HTTP2 = (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\0", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")


@dataclass(slots=True)
class Told:
    """What hostile messages were told, by kind: a typed refusal, or something that a device could be told as well."""

    refused: Counter[str] = field(default_factory=Counter)
    taken: Counter[str] = field(default_factory=Counter)
    untyped: list[str] = field(default_factory=list)
    messages: int = 0

    def hear(self, kind: str, answer: Message | grpc.StatusCode | None) -> None:
        """One message, and what came back."""
        self.messages += 1
        match answer:
            case Refused(reason=reason) | Declined(reason=reason):
                self.refused[f"{kind}: {reason}"] += 1
            case Verdict(reason=reason) if reason is not None:
                self.refused[f"{kind}: {reason}"] += 1
            case grpc.StatusCode() if answer in TYPED_STATUS:
                self.refused[f"{kind}: {answer.name.lower()}"] += 1
            case None | grpc.StatusCode():
                self.untyped.append(f"{kind}: {answer}")
            case _:
                self.taken[f"{kind}: {type(answer).__name__.lower()}"] += 1


class Peers:
    """All of them, against one edge without certificates."""

    def __init__(self, address: str, seed: int) -> None:
        self.told = Told()
        self._address = address
        self._rng = random.Random(seed)
        self._bundle: Bundle = load_bundle(None)
        self._model = self._bundle.model.sha256
        self._codecs = tuple(sorted(CODECS))
        self._names = 0

    def channel(self, **more: Any) -> grpc.aio.Channel:
        """A connection of its own."""
        return grpc.aio.insecure_channel(self._address, options=OPTIONS, **more)

    def hello(self) -> Hello:
        """A device that nobody knows."""
        self._names += 1
        return Hello(VERSION, f"x{self._names}", 1, self._model, 1.0, 125_000.0, 0.0, self._codecs, True)

    async def first_messages(self, count: int) -> None:
        """Bent frames, each as the first word on a stream of its own."""
        specs = self._bundle.model.exits[0].cuts[0]
        frames = [encode(message) for message in honest(self._model, specs)]
        bent = bent_frames(frames, self._rng, count)
        channels = [self.channel() for _ in range(AT_ONCE)]
        await asyncio.gather(*(self._send_first(channel, bent) for channel in channels))
        await asyncio.gather(*(channel.close() for channel in channels))

    async def _send_first(self, channel: grpc.aio.Channel, bent: Iterator[tuple[str, bytes]]) -> None:
        for kind, frame in bent:
            method = self._rng.choice(("Control", "Tensors"))
            call = channel.stream_stream(f"/offramp.Edge/{method}")()
            self.told.hear(kind, await first_word(call, [frame]))

    async def in_sessions(self, count: int) -> None:
        """Devices that are let in, and then upload what was not asked for."""
        left = iter(range(count))
        await asyncio.gather(*(self._misbehave(left) for _ in range(4)))

    async def _misbehave(self, left: Iterator[int]) -> None:
        async with self.channel() as control, self.channel() as tensors:
            while True:
                async with opened(control, tensors, self.hello()) as session:
                    for number in range(100):
                        if next(left, None) is None:
                            return
                        await self._misstep(session, number)

    async def _misstep(self, session: Session, number: int) -> None:
        await session.say(Announce(number, SIZE, BUDGET_S, BUDGET_S, number, 0.0, 0.0, 1.0, 0.0, 0.0))
        verdict = await session.verdict()
        if verdict is None or verdict.exit == 0:
            self.told.hear("announcement", verdict)
            return
        kind, upload = self.bad_upload(verdict)
        await session.send(upload)
        self.told.hear(kind, await session.answer())
        if self._rng.random() < 0.2:
            await session.send(upload)
            self.told.hear("upload once more", await session.answer())
        if self._rng.random() < 0.2:
            again = Announce(number, SIZE, BUDGET_S, BUDGET_S, number, 0.0, 0.0, 1.0, 0.0, 0.0)
            await session.say(again)
            self.told.hear("announcement once more", await session.verdict())

    def bad_upload(self, verdict: Verdict) -> tuple[str, Message]:
        """An upload for a decided task that is wrong in one way."""
        specs = self._bundle.model.exits[verdict.exit - 1].cuts[verdict.cut]
        place = (verdict.sequence, verdict.exit, verdict.cut, SIZE, BUDGET_S)
        if verdict.codec != UNCODED:
            return self._bad_payload(verdict, specs)
        good = wires_of({spec.name: np.zeros(spec.shape_at(SIZE), spec.dtype) for spec in specs})
        first, rest = good[0], good[1:]
        kind = self._rng.choice(BAD_UPLOADS)
        shape = (SIZE, *first.shape[1:])
        match kind:
            case "shape":
                bent = WireTensor(first.name, first.dtype, (*shape[:-1], shape[-1] + 1), first.data)
            case "type":
                bent = WireTensor(first.name, "object", shape, first.data)
            case "length":
                less = self._rng.randrange(len(first.data))
                bent = WireTensor(first.name, first.dtype, shape, first.data[:less])
            case "name":
                bent = WireTensor("somebody", first.dtype, shape, first.data)
            case "none":
                return kind, Upload(*place, ())
            case "twice":
                return kind, Upload(*place, (first, first, *rest))
            case "codec":
                return kind, CodedUpload(*place, "fp32+zstd", memoryview(bomb()))
            case _:
                wrong = {"exit": verdict.exit % 4 + 1, "cut": verdict.cut + 1, "size": SIZE + 1}
                told = {"exit": verdict.exit, "cut": verdict.cut, "size": SIZE} | {kind: wrong[kind]}
                return kind, Upload(verdict.sequence, *told.values(), BUDGET_S, good)
        return kind, Upload(*place, (bent, *rest))

    def _bad_payload(self, verdict: Verdict, specs: tuple[TensorSpec, ...]) -> tuple[str, Message]:
        place = (verdict.sequence, verdict.exit, verdict.cut, SIZE, BUDGET_S, verdict.codec)
        arrays = {spec.name: np.zeros(spec.shape_at(SIZE), spec.dtype) for spec in specs}
        good = find_codec(verdict.codec).encode(arrays, specs)
        kind = self._rng.choice(("payload cut", "payload bomb", "payload noise"))
        payloads = {
            "payload cut": good[: len(good) // 2],
            "payload bomb": bomb(),
            "payload noise": self._rng.randbytes(500),
        }
        return kind, CodedUpload(*place, memoryview(payloads[kind]))

    async def oversize(self, count: int) -> None:
        """Frames beyond the cap, and zeros that compression makes small."""
        cap = cap_of(self._bundle, 32)
        async with self.channel() as channel, self.channel(compression=grpc.Compression.Gzip) as bombs:
            for number in range(count):
                method = ("Control", "Tensors")[number % 2]
                over = channel.stream_stream(f"/offramp.Edge/{method}")()
                self.told.hear("oversize", await first_word(over, [bytes(cap + 1)]))
                bomb_call = bombs.stream_stream(f"/offramp.Edge/{method}")()
                self.told.hear("compressed bomb", await first_word(bomb_call, [bytes(10_000_000)]))

    async def slow(self, count: int) -> None:
        """Streams that are opened, and then nothing."""
        async with self.channel() as channel:
            methods = ("Control", "Tensors") * (count // 2)
            calls = [channel.stream_stream(f"/offramp.Edge/{method}")() for method in methods]
            for answer in await asyncio.gather(*(first_word(call, []) for call in calls)):
                self.told.hear("silence", answer)

    async def flood(self, count: int) -> float:
        """Connections that say nothing, or nothing that is HTTP/2; after how many seconds the edge had closed all."""
        host, port = self._address.rsplit(":", 1)
        began_s = time.monotonic()

        async def connection(number: int) -> None:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(host, int(port))
                with contextlib.suppress(OSError):
                    if number % 2:
                        writer.write(self._rng.choice(NOT_HTTP2))
                        await writer.drain()
                    while await reader.read(4096):
                        pass
                writer.close()

        await asyncio.wait_for(asyncio.gather(*(connection(number) for number in range(count))), 60.0)
        return time.monotonic() - began_s


@functools.cache
def bomb() -> bytes:
    """A few kilobytes that stand for two hundred million."""
    return zstandard.ZstdCompressor(level=1).compress(bytes(200_000_000))


async def first_word(call: Any, frames: list[bytes]) -> Message | grpc.StatusCode | None:
    """Say something on a new stream; the first answer, or the status that it ended with."""
    try:
        for frame in frames:
            await call.write(frame)
        answer = await asyncio.wait_for(call.read(), ANSWER_S)
    except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
        return await status_of(call)
    except TimeoutError:
        call.cancel()
        return None
    if not isinstance(answer, bytes):
        return await status_of(call)
    call.cancel()
    try:
        return decode_to_device(answer)
    except ProtocolError:
        return decode_to_uploader(answer)


async def status_of(call: Any) -> grpc.StatusCode | None:
    """The status that a stream ended with; None if that was no refusal."""
    code = await call.code()
    return None if code is grpc.StatusCode.OK else code


class Session:
    """A peer that was let in."""

    def __init__(self, control: Any, tensors: Any) -> None:
        self._control, self._tensors = control, tensors

    async def say(self, message: Message) -> None:
        """On the control stream."""
        await self._control.write(encode(message))

    async def send(self, message: Message) -> None:
        """On the stream of tensors."""
        await self._tensors.write(encode(message))

    async def verdict(self) -> Verdict | None:
        """The next one."""
        while isinstance(frame := await asyncio.wait_for(self._control.read(), ANSWER_S), bytes):
            message = decode_to_device(frame)
            if isinstance(message, Verdict):
                return message
        return None

    async def answer(self) -> Answer | Declined | None:
        """The next one; signs of life meanwhile."""
        await self.say(Ping(0))
        frame = await asyncio.wait_for(self._tensors.read(), ANSWER_S)
        return decode_to_uploader(frame) if isinstance(frame, bytes) else None


@contextlib.asynccontextmanager
async def opened(control: grpc.aio.Channel, tensors: grpc.aio.Channel, hello: Hello) -> Any:
    """A session, which is broken off afterwards."""
    first = control.stream_stream("/offramp.Edge/Control")()
    await first.write(encode(hello))
    welcome = decode_to_device(await asyncio.wait_for(first.read(), ANSWER_S))
    if not isinstance(welcome, Welcome):
        raise ProtocolError(f"not let in: {welcome}")
    second = tensors.stream_stream("/offramp.Edge/Tensors")()
    await second.write(encode(Attach(welcome.session)))
    try:
        yield Session(first, second)
    finally:
        first.cancel()
        second.cancel()
