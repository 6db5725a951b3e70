"""What breaks on one side, or is said by a hostile one, ends neither the process nor its work for others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from test_runtime_admission import HELLO, Bench
from test_runtime_processes import device_arguments, running, share

from offramp import remote_tails
from offramp.errors import OfframpError
from offramp.link import RateLink
from offramp.model.bundle import load_bundle
from offramp.policies.greedy import Myopic
from offramp.profile import ExitCoefficients
from offramp.remote_tails import RemoteTails
from offramp.runtime import device_connection
from offramp.runtime.device_agent import DeviceAgent, Identity
from offramp.runtime.device_connection import Connection, Endpoint, Listener
from offramp.runtime.device_core import DeviceCore
from offramp.runtime.device_job import Finished
from offramp.runtime.edge_main import load_executor
from offramp.runtime.edge_server import EdgeServer
from offramp.runtime.forecast import UNCONFIRMED
from offramp.runtime.outcomes import End, TaskRecord
from offramp.runtime.own import OwnSystem
from offramp.runtime.processor import Answered, Processor
from offramp.runtime.protocol import (
    Attach,
    Declined,
    Ping,
    Probe,
    Refusal,
    Verdict,
    Welcome,
    Withdraw,
    decode_from_uploader,
    decode_to_device,
    encode,
)
from offramp.runtime.punctual import Expectation, PunctualLoop
from offramp.runtime.samples import samples_for
from offramp.runtime.transport import CONTROL, SERVICE, TENSORS
from offramp.runtime.uplink import Uplink
from offramp.runtime.workload import PlannedTask
from offramp.task import UNCODED, Task

WELCOME = Welcome(1, b"0123456789abcdef", "edge-only", 1.0, 1.0)


class _Session:
    """Stands for a connection: is welcomed, and ends as `ends` says, one after the other."""

    ends: list[Exception]

    def __init__(self, address: str, hello: object, handlers: Any, clock: object, **_: object) -> None:
        self._handlers = handlers
        self.sent: list[bytes] = []

    def send_frame(self, frame: bytes) -> None:
        self.sent.append(frame)

    def finish(self) -> None:
        self._over.set()

    async def run(self) -> None:
        self._over = asyncio.Event()
        self._handlers.opened(WELCOME)
        if self.ends:
            raise self.ends.pop(0)
        await self._over.wait()


def _connection(opened: Callable[[], None], lost: Callable[[], None]) -> Connection:
    def nobody(_: object) -> None:
        """Not told of anything here."""

    listener = Listener(lambda welcome: opened(), lost, nobody, nobody, nobody)
    return Connection(Endpoint("x", 10**6), lambda: HELLO, listener, time.monotonic)


def test_a_session_that_ends_unforeseen_is_followed_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_connection, "Session", _Session)
    monkeypatch.setattr(device_connection, "BACKOFF_S", (0.0, 0.0))
    _Session.ends = [RuntimeError("nobody foresaw this"), asyncio.InvalidStateError("RPC already finished.")]
    told: list[str] = []

    async def connect() -> None:
        third = asyncio.Event()

        def opened() -> None:
            told.append("opened")
            if told.count("opened") == 3:
                third.set()

        connection = _connection(opened, lambda: told.append("lost"))
        await connection.open()
        await asyncio.wait_for(third.wait(), 5.0)
        assert connection.is_open
        connection.last_session()
        await connection.close()

    asyncio.run(connect())
    assert told == ["opened", "lost", "opened", "lost", "opened", "lost"]


def test_what_has_begun_to_cross_in_a_session_is_none_of_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its edge has not heard that it began, and would take every later arrival for the one before."""
    monkeypatch.setattr(device_connection, "Session", _Session)
    monkeypatch.setattr(device_connection, "BACKOFF_S", (0.0, 0.0))
    _Session.ends = []

    async def cross() -> list[list[bytes]]:
        opened = asyncio.Event()
        connection = _connection(opened.set, lambda: None)
        uplink = Uplink(RateLink(100_000.0), time.monotonic, connection.sender, 10**6)
        await connection.open()
        first = connection._session
        assert isinstance(first, _Session)
        gone = asyncio.Event()
        uplink.probe(5000, gone.set)
        opened.clear()
        first.finish()
        await asyncio.wait_for(opened.wait(), 5.0)
        second = connection._session
        assert isinstance(second, _Session)
        await asyncio.wait_for(gone.wait(), 5.0)
        there = asyncio.Event()
        uplink.probe(100, there.set)
        await asyncio.wait_for(there.wait(), 5.0)
        connection.last_session()
        await connection.close()
        return [first.sent, second.sent]

    first, second = asyncio.run(cross())
    assert [type(decode_from_uploader(frame)) for frame in second] == [Probe]
    assert [len(frame) > 5000 for frame in first + second] == [True, False]


def test_what_is_raised_for_an_ended_task_ends_the_stream() -> None:
    bundle = load_bundle(None)
    executor, exits = load_executor(bundle), bundle.coefficients()
    samples = samples_for(bundle, None, np.random.default_rng(0))

    def on_end(record: TaskRecord) -> None:
        raise BrokenPipeError("nobody reads this")

    async def play() -> None:
        agent = DeviceAgent(
            Identity("d0", 1, bundle.model.sha256),
            Endpoint("127.0.0.1:1", 10**6),
            executor,
            Processor(executor),
            OwnSystem(exits, 1.0, 125_000.0),
            RateLink(125_000.0),
            samples,
            time.monotonic,
            on_end,
        )
        plan = [PlannedTask(0.01 * n, 1.0, np.array([n])) for n in range(5)]
        try:
            await asyncio.wait_for(agent.play(plan, time.monotonic()), 20.0)
        finally:
            await agent.close()

    with pytest.raises(BrokenPipeError, match="nobody reads this"):
        asyncio.run(play())


def test_a_busy_device_ends_with_its_supervisor(tmp_path: Path) -> None:
    tasks_file = share(tmp_path / "share.npz", tasks=2000, gap_s=0.02)
    arguments = ["edge", "--port", "0", "--policy", "edge-only", "--supervised"]
    with running(*arguments) as edge:
        address = f"127.0.0.1:{edge.event('ready')['port']}"
        with running(*device_arguments(address, tasks_file), "--rate", "1mbit") as device:
            device.event("ready")
            device.order(start_s=time.monotonic() + 0.1)
            for _ in range(20):
                device.event("task")
            for pipe in (device.process.stdin, device.process.stdout, device.process.stderr):
                assert pipe is not None
                pipe.close()
            device.process.wait(timeout=20)
            device.process.stdin = device.process.stdout = device.process.stderr = None


def test_a_task_that_is_declined_before_it_was_uploaded_ends_once(
    four_exits: tuple[ExitCoefficients, ...],
) -> None:
    """No honest edge does that."""
    core = DeviceCore(OwnSystem(four_exits, 25.0, 125_000.0), fallback=False)
    core.edge_up(0.0)
    for sequence in (0, 1):
        core.submit(sequence, Task(0.0, 1, 1.0, 0), 0.0)
        core.verdict(Verdict(sequence, 4, 2, UNCODED, None, 0.0, 0.0, 0.0, 0.5, 125_000.0), 0.0)
    core.declined(Declined(1, Refusal.INTERNAL), 0.01)
    core.computed(0, 0.02, measured_s=0.02)
    core.abandon(0.1)
    ended = [action.record for action in core.take() if isinstance(action, Finished)]
    assert sorted((record.sequence, record.end) for record in ended) == [(0, End.FAILED), (1, End.FAILED)]


def test_a_device_that_never_counts_decisions_in_costs_the_edge_no_more_for_each(
    four_exits: tuple[ExitCoefficients, ...],
) -> None:
    bench = Bench(four_exits, announcements_per_s=1e6)
    for sequence in range(3 * UNCONFIRMED):
        assert (
            bench.announce(sequence, budget_s=1e6).exit > 0
        )  # it says every time that it has counted none in
        bench.edge.control(bench.token, Withdraw(sequence), bench.now_s)
    session = bench.edge._sessions.get(bench.token)
    assert session is not None
    assert len(session.peer.unconfirmed) == UNCONFIRMED


def test_what_is_refused_is_not_planned(
    four_exits: tuple[ExitCoefficients, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(four_exits, queue_per_device=2)
    assert [bench.announce(n).exit > 0 for n in range(2)] == [True, True]

    def forbidden(*_: object) -> None:
        raise AssertionError("a plan for a task that is refused")

    monkeypatch.setattr(bench.edge._forecast, "observe", forbidden)
    assert bench.announce(2).reason is Refusal.OVERLOADED


def test_who_foretells_again_and_again_fills_no_event_loop() -> None:
    async def foretell() -> int:
        loop, expectation = asyncio.get_running_loop(), Expectation()
        for turn in range(1000):
            expectation.foretell(loop.time() + 1e6 + turn)
        return sum(not timer.cancelled() for timer in loop._scheduled)  # type: ignore[attr-defined]

    with asyncio.Runner(loop_factory=PunctualLoop) as runner:
        assert runner.run(foretell()) <= 2


class _NoTails:
    """A processor that is given nothing."""

    def run_tails(self, exit: int, cut: int, given: object) -> Any:
        raise AssertionError

    def expect(self, exit: int, cut: int) -> None:
        raise AssertionError

    def stop(self) -> None:
        """Nothing is under way."""


def test_a_session_has_one_stream_of_tensors(four_exits: tuple[ExitCoefficients, ...]) -> None:
    """More would take the places of other devices, and outlive it."""

    async def attach() -> tuple[Any, Any]:
        core = Bench(four_exits).edge
        server = EdgeServer(core, _NoTails(), lambda *_: Myopic(), time.monotonic, max_frame_bytes=10**6)
        port = await server.start("127.0.0.1", 0)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            control = channel.stream_stream(f"/{SERVICE}/{CONTROL}")()
            await control.write(encode(replace_device(HELLO)))
            welcome = decode_to_device(await control.read())
            assert isinstance(welcome, Welcome), welcome
            streams = [channel.stream_stream(f"/{SERVICE}/{TENSORS}")() for _ in range(2)]
            heard = []
            for stream in streams:
                await stream.write(encode(Attach(welcome.session)))
                await stream.write(encode(Ping(1)))
                try:
                    heard.append(await asyncio.wait_for(stream.read(), 5.0))
                except grpc.aio.AioRpcError as error:
                    heard.append(error.code())
            control.cancel()
        await server.stop()
        return heard[0], heard[1]

    first, second = asyncio.run(attach())
    assert isinstance(first, bytes)
    assert second is grpc.StatusCode.INVALID_ARGUMENT


def replace_device(hello: Any) -> Any:
    """The same from a device of another name."""
    fields = {name: getattr(hello, name) for name in hello.__struct_fields__} | {"device": "d1"}
    return type(hello)(**fields)


class _Reference:
    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call


class _Remote:
    """A method of an actor: calling it gives a reference."""

    def __init__(self, call: Callable[..., object]) -> None:
        self._call = call

    def remote(self, *arguments: object) -> _Reference:
        return _Reference(lambda: self._call(*arguments))


class _Actor:
    def __init__(self, cluster: _Cluster) -> None:
        self.begin = _Remote(lambda *_: cluster.begins())
        self.run_tails = _Remote(lambda *_: cluster.runs(self))


class _Exceptions:
    class RayError(Exception):
        pass

    class RayActorError(RayError):
        pass

    class ObjectLostError(RayError):
        pass

    class RayTaskError(RayError):
        pass


class _Cluster:
    """As much of Ray as a pool of workers uses; `begins` and `runs` say what comes of a call."""

    exceptions = _Exceptions

    def __init__(self) -> None:
        self.actors: list[_Actor] = []
        self.begins: Callable[[], object] = lambda: None
        self.runs: Callable[[_Actor], object] = lambda actor: Answered("o", [None], 0.0)

    def put(self, value: object) -> object:
        return value

    def remote(self, **_: object) -> Callable[[type], Any]:
        return lambda kind: _Kind(self)

    def wait(self, references: list[_Reference], timeout: float) -> tuple[list[_Reference], list[object]]:
        return references, []

    def get(self, reference: _Reference, timeout: float | None = None) -> object:
        return reference.call()

    def kill(self, actor: _Actor) -> None:
        if actor in self.actors:
            self.actors.remove(actor)


class _Kind:
    def __init__(self, cluster: _Cluster) -> None:
        self._cluster = cluster

    def remote(self) -> _Actor:
        actor = _Actor(self._cluster)
        self._cluster.actors.append(actor)
        return actor


def test_a_result_that_is_lost_with_its_machine_is_computed_by_another_worker() -> None:
    cluster = _Cluster()
    tails = RemoteTails(cluster, load_bundle(None).model, 2)
    first, _ = cluster.actors

    def runs(actor: _Actor) -> object:
        if actor is first:
            raise _Exceptions.ObjectLostError
        return Answered("o", [None], 0.0)

    cluster.runs = runs
    assert all(tails.run_tails(1, 0, [{}]).output == "o" for _ in range(4))
    assert first not in cluster.actors
    tails.stop()


def test_a_lost_worker_is_replaced_once_what_is_in_the_way_has_passed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote_tails, "RETRY_S", 0.0)
    cluster = _Cluster()
    tails = RemoteTails(cluster, load_bundle(None).model, 1)
    (first,) = cluster.actors
    failures = iter([OfframpError("address", "host", "has other code"), RuntimeError("no environment")])

    def begins() -> None:
        if (failure := next(failures, None)) is not None:
            raise failure

    def runs(actor: _Actor) -> object:
        if actor is first:
            raise _Exceptions.RayActorError
        return Answered("o", [None], 0.0)

    cluster.begins, cluster.runs = begins, runs
    assert tails.run_tails(1, 0, [{}]).output == "o"
    assert next(failures, None) is None
    tails.stop()
    assert not cluster.actors
