"""Clients that load a server: one task in flight each, over a connection that stays open. The same loop for all servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import numpy as np

from offramp.model.tensors import TensorSpec
from offramp.runtime.device_session import Handlers, Session
from offramp.runtime.protocol import (
    VERSION,
    Announce,
    Answer,
    Hello,
    ToDevice,
    ToUploader,
    Upload,
    Verdict,
    Welcome,
    encode,
    wire_of,
)

BUDGET_S = 30.0


class Client(Protocol):
    """One connection."""

    async def open(self) -> None: ...

    async def ask(self, images: np.ndarray) -> bytes:
        """The logits' bytes."""
        ...

    async def close(self) -> None: ...


class HttpClient:
    """HTTP/1.1 without anything that a server does not need to see."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)

    async def ask(self, images: np.ndarray) -> bytes:
        body = images.tobytes()
        self._writer.write(
            b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/octet-stream\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body)
        )
        self._writer.write(body)
        head = await self._reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode("latin-1").splitlines()[0])
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        return await self._reader.readexactly(int(length[15:]))

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


class EdgeClient:
    """A device that computes nothing itself: it announces a task, and uploads its input when the edge says so."""

    def __init__(self, port: int, number: int, model_sha256: str, spec: TensorSpec) -> None:
        self._spec = spec
        epoch = time.time_ns() // 1_000_000
        hello = Hello(VERSION, f"client-{number}", epoch, model_sha256, 1.0, 1e9, 0.0, (), True)
        handlers = Handlers(self._opened, self._control, self._tensors, lambda silent: None)
        self._session = Session(
            f"127.0.0.1:{port}",
            hello,
            handlers,
            time.monotonic,
            max_frame_bytes=1 << 20,
            credentials=None,
            opening_s=10.0,
        )
        self._sequence = 0
        self._verdicts = 0

    async def open(self) -> None:
        self._ready = asyncio.get_running_loop().create_future()
        self._running = asyncio.ensure_future(self._session.run())
        done, _ = await asyncio.wait({self._running, self._ready}, return_when=asyncio.FIRST_COMPLETED)
        if self._running in done:
            self._running.result()

    async def ask(self, images: np.ndarray) -> bytes:
        self._images = images
        self._due_s = time.monotonic() + BUDGET_S
        self._answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._session.say(
            Announce(
                self._sequence, len(images), BUDGET_S, BUDGET_S, self._verdicts, 0.0, 0.0, 1.0, 0.0, 0.0
            )
        )
        self._sequence += 1
        return await self._answer

    async def close(self) -> None:
        self._session.finish()
        await asyncio.wait({self._running}, timeout=2.0)
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)

    def _opened(self, welcome: Welcome) -> None:
        self._ready.set_result(None)

    def _control(self, message: ToDevice) -> None:
        if not isinstance(message, Verdict):
            return
        self._verdicts += 1
        if message.exit == 0 or message.cut != 0:
            self._answer.set_exception(RuntimeError(f"not what was to be decided: {message}"))
            return
        wire = wire_of(self._spec.name, self._images)
        upload = Upload(
            message.sequence,
            message.exit,
            0,
            len(self._images),
            self._due_s - time.monotonic(),
            (wire,),
        )
        self._session.send_frame(encode(upload))

    def _tensors(self, message: ToUploader) -> None:
        if isinstance(message, Answer):
            self._answer.set_result(bytes(message.logits.data))
        else:
            self._answer.set_exception(RuntimeError(f"declined: {message.reason}"))


async def with_clients(
    clients: Sequence[Client], work: Callable[[Sequence[Client]], Awaitable[list[float]]]
) -> list[float]:
    """Open the connections, do the work, close them."""
    for client in clients:
        await client.open()
    try:
        return await work(clients)
    finally:
        await asyncio.gather(*(client.close() for client in clients), return_exceptions=True)


async def saturate(clients: Sequence[Client], batches: Sequence[np.ndarray], lasting_s: float) -> list[float]:
    """Every client asks again as soon as it is answered; gives when the answers came, from the beginning."""
    began_s = time.perf_counter()
    ends_s: list[float] = []

    async def loop(client: Client, first: int) -> None:
        number = first
        while time.perf_counter() < began_s + lasting_s:
            await client.ask(batches[number % len(batches)])
            ends_s.append(time.perf_counter() - began_s)
            number += 1

    await asyncio.gather(*(loop(client, number) for number, client in enumerate(clients)))
    return ends_s


async def pace(
    clients: Sequence[Client],
    batches: Sequence[np.ndarray],
    rate: float,
    lasting_s: float,
    rng: np.random.Generator,
) -> list[float]:
    """Poisson arrivals at a rate; gives the seconds from each arrival to its answer, waiting for a client included."""
    instants_s = np.cumsum(rng.exponential(1.0 / rate, int(rate * lasting_s)))
    idle: asyncio.Queue[Client] = asyncio.Queue()
    for client in clients:
        idle.put_nowait(client)
    began_s = time.perf_counter()
    taken_s: list[float] = []

    async def serve(client: Client, number: int, due_s: float) -> None:
        await client.ask(batches[number % len(batches)])
        taken_s.append(time.perf_counter() - due_s)
        idle.put_nowait(client)

    running = []
    for number, instant_s in enumerate(instants_s):
        due_s = began_s + instant_s
        if (wait_s := due_s - time.perf_counter()) > 0:
            await asyncio.sleep(wait_s)
        running.append(asyncio.ensure_future(serve(await idle.get(), number, due_s)))
    await asyncio.gather(*running)
    return taken_s
