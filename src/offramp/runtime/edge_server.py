"""The edge on the network: feeds `EdgeCore` with what comes in, and does what it asks for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc.aio

from offramp.errors import OfframpError
from offramp.model.tensors import Array
from offramp.runtime import edge_job
from offramp.runtime.client_port import ClientPort
from offramp.runtime.edge_core import EdgeCore
from offramp.runtime.edge_door import Door
from offramp.runtime.edge_policies import MakePolicy, PolicyMaking
from offramp.runtime.edge_streams import Streams, both, end, last_word, small, write
from offramp.runtime.edge_workers import Computing
from offramp.runtime.health import Health
from offramp.runtime.memory import Slack
from offramp.runtime.processor import Answered, Tails
from offramp.runtime.protocol import (
    Attach,
    Begun,
    Declined,
    Hello,
    Message,
    Ping,
    Probe,
    Refusal,
    Refused,
    Sending,
    Standing,
    Verdict,
    decode_from_device,
    decode_from_uploader,
    encode,
)
from offramp.runtime.punctual import Expectation
from offramp.runtime.transport import CONTROL, SERVICE, TENSORS, listen, server_options
from offramp.runtime.wire import ProtocolError

if TYPE_CHECKING:
    from offramp.runtime.certificates import Identity, RevokedList
    from offramp.runtime.metrics import EdgeMetrics

TICK_S = 0.25
FORESEE_S = 0.002
"""How long after an answer the next task of its kind is decided: the answer must have left by then."""
SLACK_S = 5.0
"""How often to see whether memory is to be given back, as soon as there is nothing to do."""
OPENING_S = 2.0
"""How long a new stream may take to say who it is."""
STREAMS = 4
"""Streams for each connection, on average: a device has one on each."""
NOBODY = f"did not say who it is within {OPENING_S:g} s"
SUSPICIOUS = frozenset({Refusal.REPEATED, Refusal.BAD_TENSORS, Refusal.TOO_LARGE, Refusal.CODEC})
"""Refusals of tasks that no honest device is given."""
_LOG = logging.getLogger(__name__)


class EdgeServer:
    """One edge. `start`, then `drain`, then `stop`.

    `on_policy` is told how many devices there are whenever their policy has been made, or has failed to be, and why
    another decides in its place, if one does.
    """

    def __init__(
        self,
        core: EdgeCore,
        processor: Tails,
        make_policy: MakePolicy,
        clock: Callable[[], float],
        *,
        max_frame_bytes: int,
        workers: int = 1,
        max_batch: int = 1,
        identity: Identity | None = None,
        revoked: RevokedList | None = None,
        metrics: EdgeMetrics | None = None,
        on_policy: Callable[[int, str | None], None] = lambda devices, notice: None,
    ) -> None:
        self._metrics = metrics
        self._identity = identity
        self._door = Door(identity, revoked)
        self._core = core
        self._policies = PolicyMaking(core, make_policy, clock, on_policy)
        self._clock = clock
        self._streams: dict[bytes, Streams] = {}
        self._computing = Computing(processor, workers, max_batch, lambda: core.devices, self._ran, clock)
        self._server = grpc.aio.server(
            options=server_options(max_frame_bytes, core.limits.connections),
            maximum_concurrent_rpcs=STREAMS * core.limits.connections,
        )
        self._uploads = Expectation()
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._clients = ClientPort(core, self._act, clock, max_frame_bytes)

    async def start(self, host: str, port: int) -> int:
        """Listen; gives the port. Raises OfframpError if that cannot be done."""
        handlers = {
            CONTROL: grpc.stream_stream_rpc_method_handler(self._control),
            TENSORS: grpc.stream_stream_rpc_method_handler(self._tensors),
        }
        health = Health(lambda: not self._core.draining)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, handlers), health.handler())
        )
        bound = listen(self._server, f"{host}:{port}", self._identity)
        if bound == 0:
            raise OfframpError(
                "port", port, f"cannot be listened on at {host}", "choose a free one with --port"
            )
        await self._server.start()
        self._spawn(self._tick())
        return bound

    async def serve_clients(self, port: int) -> int:
        """Serve programs on this machine, too; gives the port. Raises OfframpError if that cannot be done."""
        return await self._clients.start(port)

    async def drain(self) -> None:
        """Take no new tasks, and finish those that are decided."""
        self._core.drain()
        self._act()
        while not self._core.idle:
            self._idle.clear()
            await self._idle.wait()

    async def stop(self) -> None:
        """End all streams and wait for the threads."""
        for task in list(self._tasks):
            task.cancel()
        for streams in self._streams.values():
            for queue in (streams.control, streams.tensors):
                end(queue)
        await self._clients.stop()
        await self._server.stop(grace=0.5)
        self._computing.stop()
        self._policies.stop()

    async def _control(self, _: Any, context: Any) -> None:
        token: bytes | None = None
        try:
            frame = await asyncio.wait_for(context.read(), OPENING_S)
            streams = Streams()
            opened = self._open(frame, context, streams)
            if isinstance(opened, Refused):
                _LOG.warning("session refused: %s %s from %s", opened.reason, opened.value, context.peer())
                await context.write(encode(opened))
                return
            token = opened
            self._streams[token] = streams
            _LOG.info("device %s is here, from %s", streams.device, context.peer())
            self._act()
            await both(self._read_control(context, token), write(context, streams.control), streams)
        except (grpc.aio.AioRpcError, grpc.aio.UsageError):
            pass
        except (ProtocolError, TimeoutError) as error:
            why = str(error) or NOBODY
            _LOG.warning("control stream from %s closed: %s", context.peer(), why)
            await last_word(context, Refused(Refusal.PROTOCOL, why[:200], "a valid message", ""))
        finally:
            if token is not None:
                _LOG.info("device %s is gone", streams.device)
                self._core.gone(token, self._clock())
                end(self._streams.pop(token).tensors)
                self._act()

    def _open(self, frame: Any, context: Any, streams: Streams) -> bytes | Refused:
        if not isinstance(frame, bytes):
            raise ProtocolError("the stream ended before a hello")
        hello = decode_from_device(small(frame))
        if not isinstance(hello, Hello):
            raise ProtocolError("the first message must be a hello")
        streams.device = hello.device
        return self._door.identify(context, streams) or self._core.hello(hello, self._clock())

    async def _read_control(self, context: Any, token: bytes) -> None:
        while isinstance(frame := await context.read(), bytes):
            message, now_s = decode_from_device(small(frame)), self._clock()
            self._core.control(token, message, now_s)
            self._act()
            if isinstance(message, Sending):
                due_s = self._core.upload_due_s(token, now_s)
                if due_s is not None:
                    self._uploads.foretell(due_s)

    async def _tensors(self, _: Any, context: Any) -> None:
        try:
            frame = await asyncio.wait_for(context.read(), OPENING_S)
            message = decode_from_uploader(frame) if isinstance(frame, bytes) else None
            if not isinstance(message, Attach):
                raise ProtocolError("the first message must attach to a session")
            streams = self._streams.get(message.session)
            if streams is None:
                raise ProtocolError("no such session")
            if not self._door.is_owner(context, streams):
                raise ProtocolError("the session is another device's")
            if streams.attached:
                raise ProtocolError("the session has its stream of tensors")
            streams.attached = True
            await both(self._read_tensors(context, message.session), write(context, streams.tensors), streams)
        except (grpc.aio.AioRpcError, grpc.aio.UsageError):
            pass
        except (ProtocolError, TimeoutError) as error:
            why = str(error) or NOBODY
            _LOG.warning("stream of tensors from %s closed: %s", context.peer(), why)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, why[:200])

    async def _read_tensors(self, context: Any, token: bytes) -> None:
        while isinstance(frame := await context.read(), bytes):
            message = decode_from_uploader(frame)
            if isinstance(message, Ping):
                self._core.ping(token, message, self._clock())
                self._act()
                if self._core.idle:
                    self._computing.keep_at_hand()
                continue
            self._uploads.came(self._clock())
            if isinstance(message, Attach):
                raise ProtocolError("attached already")
            if isinstance(message, Probe):
                self._core.probe(token, self._clock())
                self._act()
                continue
            if isinstance(message, Begun):
                self._core.begun(token, message, self._clock())
            else:
                self._core.upload(token, message, self._clock())
            self._act()
            # An answer that is there already leaves before the next message is asked for.
            await asyncio.sleep(0)

    async def _tick(self) -> None:
        slack, looked_s = Slack(), self._clock()
        while True:
            await asyncio.sleep(TICK_S)
            self._core.tick(self._clock())
            self._act()
            self._drop_revoked()
            if self._core.idle and self._clock() > looked_s + SLACK_S:
                looked_s = self._clock()
                slack.give_back(looked_s)

    def _drop_revoked(self) -> None:
        for token in self._door.revoked_since(self._streams):
            _LOG.warning(
                "device %s is cut off: its certificate has been revoked", self._streams[token].device
            )
            self._hang(token)

    def _act(self) -> None:
        while actions := self._core.take():
            for action in actions:
                self._carry_out(action)
        if self._core.draining and self._core.idle:
            self._idle.set()

    def _carry_out(self, action: edge_job.Action) -> None:
        match action:
            case edge_job.Say(session, message):
                self._put(session, message, to_tensors=False)
                if isinstance(message, Standing):
                    self._computing.expect(message.exit, message.cut)
            case edge_job.Reply(session, message):
                self._put(session, message, to_tensors=True)
            case edge_job.Run():
                if self._computing.begin(action) and not action.batch.apart:
                    self._core.apart(action.batch, self._clock())
            case edge_job.Remake(version, system):
                self._spawn(self._policies.remake(version, system))
            case edge_job.Hang(session):
                self._hang(session)
            case edge_job.Foresee():
                asyncio.get_running_loop().call_later(FORESEE_S, self._foresee, action)

    def _foresee(self, asked: edge_job.Foresee) -> None:
        self._core.foresee(asked, self._clock())
        self._act()

    def _put(self, session: bytes, message: Message, *, to_tensors: bool) -> None:
        streams = self._streams.get(session)
        if streams is None:
            self._clients.send(session, message)
            return
        if isinstance(message, Verdict | Declined) and message.reason in SUSPICIOUS:
            _LOG.warning("device %s, task %d refused: %s", streams.device, message.sequence, message.reason)
        try:
            (streams.tensors if to_tensors else streams.control).put_nowait(encode(message))
        except asyncio.QueueFull:
            _LOG.warning("a device does not read what it is sent: cut off")
            self._hang(session)

    def _hang(self, session: bytes) -> None:
        streams = self._streams.get(session)
        if streams is None:
            self._clients.hang(session)
        else:
            for reader in streams.readers:
                reader.cancel()

    def _ran(self, batch: edge_job.Batch, answered: Answered | None) -> None:
        made: list[tuple[str, Array] | Refusal] = [Refusal.INTERNAL] * len(batch.works)
        if answered is not None:
            made = [
                Refusal.BAD_TENSORS if each is None else (answered.output, each) for each in answered.logits
            ]
        self._core.computed(batch, made, self._clock(), 0.0 if answered is None else answered.took_s)
        self._act()
        if answered is not None:
            # Behind the writers that the answers have woken: the rest keeps nobody waiting.
            asyncio.get_running_loop().call_soon(self._learn, batch, answered)

    def _learn(self, batch: edge_job.Batch, answered: Answered) -> None:
        """See what a batch that has been answered says of this edge."""
        if self._metrics is not None:
            self._metrics.computed(batch, answered.took_s)
        if all(each is not None for each in answered.logits):
            self._core.took(batch, answered.took_s)
        if (drift := self._core.speed.news()) is not None:
            _LOG.warning("this edge takes %.2f times what it took at the start", 1.0 + drift)

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
