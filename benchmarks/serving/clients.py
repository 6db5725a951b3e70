"""Clients that load a server, all alike: one task in flight each, over a connection that stays open."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import numpy as np

from offramp.model.tensors import TensorSpec
from offramp.runtime.client import EdgeClient

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


class OfframpClient:
    """The package's own client, which sends each task with its announcement."""

    def __init__(self, port: int, number: int, model_sha256: str, spec: TensorSpec) -> None:
        self._name = spec.name
        self._client = EdgeClient(port, f"client-{number}", model_sha256, (spec,))

    async def open(self) -> None:
        await self._client.open()

    async def ask(self, images: np.ndarray) -> bytes:
        return (await self._client.infer({self._name: images}, BUDGET_S)).logits.tobytes()

    async def close(self) -> None:
        await self._client.close()


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
