"""Programs beside the edge that send tasks with their inputs: real processes and sockets, and the framing."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_runtime_processes import Running, running

from offramp.errors import OfframpError
from offramp.model.bundle import load_bundle
from offramp.model.executor import ChainExecutor
from offramp.model.inputs import random_inputs
from offramp.runtime.client import EdgeClient, TaskRefusedError
from offramp.runtime.client_protocol import Frames, decode_to_client
from offramp.runtime.protocol import Ping, Refusal, Refused, encode
from offramp.runtime.wire import ProtocolError

MODEL = load_bundle(None).model


@pytest.fixture
def edge(request: pytest.FixtureRequest) -> Iterator[tuple[Running, int]]:
    options = getattr(request, "param", ["--policy", "edge-only"])
    arguments = ["--port", "0", "--client-port", "0", "--supervised", *options]
    with running("edge", *arguments) as process:
        yield process, process.event("ready")["client_port"]


def client(port: int, name: str = "program") -> EdgeClient:
    return EdgeClient(port, name, MODEL.sha256, MODEL.inputs)


def with_client(port: int, work: Callable[[EdgeClient], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        one = client(port)
        await one.open()
        try:
            return await work(one)
        finally:
            await one.close()

    return asyncio.run(run())


def ended(edge: Running) -> dict[str, Any]:
    edge.process.send_signal(signal.SIGTERM)
    counts = edge.event("done")
    assert edge.finish()[0] == 0
    return counts


@pytest.mark.parametrize(
    "edge",
    [
        ["--policy", "edge-only"],
        ["--policy", "planner"],
        ["--policy", "edge-only", "--workers", "2", "--max-batch", "4"],
    ],
    indirect=True,
    ids=["edge-only", "planner", "workers"],
)
def test_every_task_gets_its_own_answer(edge: tuple[Running, int]) -> None:
    process, port = edge
    rng, executor = np.random.default_rng(0), ChainExecutor(MODEL, threads=1)
    tasks = [random_inputs(MODEL.inputs, int(size), rng) for size in rng.integers(1, 9, 20)]

    answers = with_client(port, lambda one: asyncio.gather(*(one.infer(task, 20.0) for task in tasks)))

    for task, answer in zip(tasks, answers, strict=True):
        np.testing.assert_allclose(answer.logits, executor.run(answer.exit, task), rtol=1e-3, atol=1e-4)
    counts = ended(process)
    assert counts["announced"] == counts["decided"] == counts["answered"] == 20
    assert counts["turned_away"] == counts["declined"] == {}


@pytest.mark.parametrize(
    "edge",
    [["--policy", "edge-only"], ["--policy", "edge-only", "--max-batch", "8"]],
    indirect=True,
    ids=["alone", "batches"],
)
def test_many_short_tasks_of_several_clients_get_their_own_answers(edge: tuple[Running, int]) -> None:
    """So many that the tail that they all have becomes one session on the way."""
    process, port = edge
    rng, executor = np.random.default_rng(0), ChainExecutor(MODEL, threads=1)
    tasks = [random_inputs(MODEL.inputs, 1, rng) for _ in range(16)]

    async def ask(number: int) -> None:
        one = client(port, f"program-{number}")
        await one.open()
        for turn in range(100):
            task = tasks[(number + turn) % len(tasks)]
            answer = await one.infer(task, 20.0)
            expected = executor.run(answer.exit, task)
            np.testing.assert_allclose(answer.logits, expected, rtol=1e-3, atol=1e-4)
        await one.close()

    async def all_ask() -> None:
        await asyncio.gather(*(ask(number) for number in range(4)))

    asyncio.run(all_ask())
    counts = ended(process)
    assert counts["answered"] == counts["announced"] == 400


def test_what_cannot_be_served_is_refused_and_counted(edge: tuple[Running, int]) -> None:
    process, port = edge
    rng = np.random.default_rng(0)
    small, large = (random_inputs(MODEL.inputs, size, rng) for size in (1, 33))

    async def ask(one: EdgeClient) -> list[Refusal]:
        reasons = []
        for task, budget_s in ((large, 5.0), (small, 0.0)):
            with pytest.raises(TaskRefusedError) as caught:
                await one.infer(task, budget_s)
            reasons.append(caught.value.reason)
        with pytest.raises(OfframpError, match="dtype"):
            await one.infer({name: array.astype(np.float64) for name, array in small.items()}, 5.0)
        other = client(port)
        with pytest.raises(OfframpError, match="id-in-use"):
            await other.open()
        assert (await one.infer(small, 5.0)).logits.shape == (1, 10)
        return reasons

    assert with_client(port, ask) == [Refusal.TOO_LARGE, Refusal.POLICY]
    counts = ended(process)
    assert counts["announced"] == counts["decided"] + sum(counts["turned_away"].values()) == 3


def test_garbage_ends_a_connection_and_nothing_else(edge: tuple[Running, int]) -> None:
    process, port = edge

    async def shout(said: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        heard = await reader.read()
        writer.close()
        return heard

    early = len(encode(Ping(0))).to_bytes(4, "little") + encode(Ping(0))
    for said in (b"GET / HTTP/1.1\r\n\r\n", b"\x05\x00\x00\x00\xc1\xc1\xc1\xc1\xc1", early):
        (frame,) = Frames(1 << 20).feed(asyncio.run(shout(said)))
        refused = decode_to_client(frame)
        assert isinstance(refused, Refused)
        assert refused.reason is Refusal.PROTOCOL
    task = random_inputs(MODEL.inputs, 2, np.random.default_rng(0))
    assert with_client(port, lambda one: one.infer(task, 5.0)).logits.shape == (2, 10)

    async def lose(one: EdgeClient) -> None:
        process.process.kill()
        process.process.wait()
        with pytest.raises(ConnectionError):
            await one.infer(task, 5.0)

    with_client(port, lose)


def test_a_hung_edge_is_noticed_by_its_clients(edge: tuple[Running, int]) -> None:
    process, port = edge
    task = random_inputs(MODEL.inputs, 2, np.random.default_rng(0))

    async def hang(one: EdgeClient) -> None:
        assert (await one.infer(task, 5.0)).logits.shape == (2, 10)
        process.process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(ConnectionError):
                await asyncio.wait_for(one.infer(task, 5.0), 30.0)
        finally:
            process.process.send_signal(signal.SIGCONT)

    with_client(port, hang)
    assert ended(process)["answered"] >= 1


@given(st.lists(st.binary(max_size=40), max_size=8), st.data())
def test_frames_survive_any_cutting(frames: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(len(frame).to_bytes(4, "little") + frame for frame in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    whole, placed = Frames(40), Frames(40)
    found: dict[str, list[bytes]] = {"fed": [], "placed": []}
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found["fed"] += whole.feed(stream[begin:end])
        placed.room()[: end - begin] = stream[begin:end]
        found["placed"] += placed.filled(end - begin)
    assert found == {"fed": frames, "placed": frames}
    with pytest.raises(ProtocolError):
        Frames(3).feed(b"\x04\x00\x00\x00")
