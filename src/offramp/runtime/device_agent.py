"""The device on the network: plays a stream of tasks through `DeviceCore`, computes, uploads and listens."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from offramp.link import Link
from offramp.model.tensors import Array
from offramp.options import Gain
from offramp.runtime import device_job
from offramp.runtime.device_connection import Connection, Endpoint, Listener
from offramp.runtime.device_core import DeviceCore
from offramp.runtime.device_payloads import Payloads
from offramp.runtime.device_probe import Probes
from offramp.runtime.journal import Journal, JournalFullError
from offramp.runtime.margin import Margin
from offramp.runtime.outcomes import TaskRecord
from offramp.runtime.own import OwnSystem
from offramp.runtime.processor import Executor, Processor
from offramp.runtime.protocol import (
    VERSION,
    Answer,
    Closing,
    Hello,
    Ping,
    Pong,
    Reconsider,
    Refused,
    Result,
    Standing,
    ToDevice,
    Verdict,
    Welcome,
    encode,
)
from offramp.runtime.punctual import Expectation, Wake
from offramp.runtime.uplink import Uplink
from offramp.runtime.wire import ProtocolError
from offramp.runtime.workload import PlannedTask, Samples
from offramp.task import UNCODED, Task

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the device is, which model it has, and what kinds of tasks it expects: see `workload.kinds_of`."""

    device: str
    epoch: int
    model_sha256: str
    kinds: tuple[tuple[int, float], ...] = ()


class DeviceAgent:
    """One device: `connect`, then `play`, then `close`."""

    def __init__(
        self,
        identity: Identity,
        endpoint: Endpoint,
        executor: Executor,
        processor: Processor,
        own: OwnSystem,
        link: Link,
        samples: Samples,
        clock: Callable[[], float],
        on_end: Callable[[TaskRecord], None],
        journal: Journal | None = None,
        margin: Margin | None = None,
    ) -> None:
        self.failure: JournalFullError | None = None
        self.core = DeviceCore(own, probes=Probes(steady=link.steady), margin=margin)
        self._identity = identity
        self._processor = processor
        self._own = own
        self._link = link
        self._samples = samples
        self._clock = clock
        self._on_end = on_end
        self._journal = journal
        self._payloads = Payloads(executor)
        self._origin_s = 0.0
        self._error: BaseException | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="device-compute")
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopping = False
        self._alarm: asyncio.Future[None] | None = None
        self._changed = asyncio.Event()
        self._check: asyncio.TimerHandle | None = None
        self._answers = Expectation()
        self._wake = Wake(lambda: self._connection.send_frame(encode(Ping(0))))
        listener = Listener(self._opened, self._lost, self._control, self._answered, self._silent)
        self._connection = Connection(endpoint, self._hello, listener, clock)
        self._uplink = Uplink(link, clock, self._connection.sender, endpoint.max_frame_bytes // 2)

    async def connect(self) -> None:
        """Reach the edge. Raises OfframpError if there is none or it does not take this device."""
        await self._connection.open()

    async def play(self, plan: Iterable[PlannedTask], start_s: float) -> None:
        """Take the planned tasks on when they arrive, and wait until every one of them has ended.

        `stop` ends it early, and so does a journal that cannot be written, which `failure` then holds: no more
        tasks are taken on, those in flight are finished. What else goes wrong in here, or in `on_end`, ends it at
        once and is raised.
        """
        self._origin_s = start_s
        self.core.expect_tasks(self._clock())
        self._act()
        for sequence, planned in enumerate(plan):
            inputs = self._samples.take(planned.rows)  # a camera has its picture ready when it says so
            await self._until(start_s + planned.arrival_s)
            if self._stopping:
                break
            self._submit(sequence, planned, inputs, start_s)
        while not self.core.idle and self._error is None:
            self._changed.clear()
            await self._changed.wait()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Take no more tasks on."""
        self._stopping = True
        self._ring()

    async def close(self) -> None:
        """Say goodbye and end everything that runs. Tasks that are still in flight end as failed."""
        self._connection.last_session()
        self.core.abandon(self._clock())
        self.core.bye()
        self._act()
        self._processor.stop()
        await self._connection.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._check is not None:
            self._check.cancel()
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def _until(self, instant_s: float) -> None:
        left_s = instant_s - self._clock()
        if left_s <= 0:
            # A device that is behind its stream must not do nothing but take tasks on: it has an edge to hear.
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        self._alarm = loop.create_future()
        if self._stopping:
            return
        timer = loop.call_later(left_s, self._ring)
        try:
            await self._alarm
        finally:
            timer.cancel()

    def _ring(self) -> None:
        if self._alarm is not None and not self._alarm.done():
            self._alarm.set_result(None)

    def _submit(self, sequence: int, planned: PlannedTask, inputs: Samples, start_s: float) -> None:
        task = Task(start_s + planned.arrival_s, planned.size, planned.budget_s, 0)
        if self._journal is not None and not self._written(self._journal.accept, sequence, task):
            return
        self._payloads.accept(sequence, inputs)
        self.core.submit(sequence, task, self._clock())
        self._act()
        if self.core.edge.standing:  # so no other device is at work
            self._wake.came(task.arrival_s)

    def _written(self, write: Callable[..., None], *what: object) -> bool:
        """Write to the journal; if that fails, take no more tasks on."""
        try:
            write(*what)
        except JournalFullError as error:
            _LOG.error("the journal cannot be written: %s", error)
            self.failure = self.failure or error
            self.stop()
            return False
        return True

    def _hello(self) -> Hello:
        return Hello(
            VERSION,
            self._identity.device,
            self._identity.epoch,
            self._identity.model_sha256,
            self._own.slowdown,
            self._link.bandwidth_bytes_per_s,
            self._link.delay_s,
            self._own.codecs,
            self._link.steady,
            self._identity.kinds,
        )

    def _opened(self, welcome: Welcome) -> None:
        self._own.use_gain(Gain(welcome.accuracy_weight, welcome.accuracy_slope))
        self.core.edge_up(self._clock())
        self._act()

    def _lost(self) -> None:
        self.core.edge_lost(self._clock())
        self._act()

    def _silent(self, silent: bool) -> None:
        if silent:
            self.core.edge_silent(self._clock())
            self._act()
        elif self._connection.is_open and not self.core.edge.trusted:
            self.core.edge_up(self._clock())

    def _control(self, message: ToDevice) -> None:
        match message:
            case Verdict():
                self.core.verdict(message, self._clock())
                self._act()
            case Standing():
                self.core.standing(message)
            case Reconsider():
                self.core.reconsider()
            case Closing():
                self.core.edge_closing()
            case Welcome() | Refused() | Pong():
                raise ProtocolError("out of turn")

    def _answered(self, message: Result) -> None:
        now_s = self._clock()
        if isinstance(message, Answer):
            self._answers.came(now_s)
            exit = self.core.uploaded_exit(message.sequence)
            if exit is not None:
                self._payloads.answered(message, exit)
            self.core.answer(message, now_s)
        else:
            self.core.declined(message, now_s)
        self._act()

    def _act(self) -> None:
        try:
            while actions := self.core.take():
                for action in actions:
                    self._do(action)
            self._schedule_check()
        except Exception as error:  # noqa: BLE001 - lost in whatever has called this, it would leave `play` waiting
            self._fail(error)
        self._changed.set()

    def _fail(self, error: BaseException) -> None:
        """Something is broken: let `play` end with what it was."""
        self._error = self._error or error
        self.stop()
        self._changed.set()

    def _do(self, action: device_job.Action) -> None:
        match action:
            case device_job.Say(message):
                self._connection.say(message)
            case device_job.Compute():
                self._start(action)
            case device_job.Carry():
                self._carry(action)
            case device_job.SendProbe(size_bytes):
                self.core.sending(self._uplink.probe(size_bytes, self._probed))
            case device_job.Decided(sequence, decision):
                if self._journal is not None:
                    self._written(self._journal.decide, sequence, decision)
            case device_job.Finished(record):
                self._finish(record)

    def _start(self, action: device_job.Compute) -> None:
        """Begin to compute. The input is taken now: later an answer may already have ended the task."""
        if action.stop > 0 or action.codec != UNCODED:
            self._spawn(self._compute(action, self._payloads.given(action)))
            return
        self._payloads.cross_as_they_are(action)  # no thread need be woken for that
        self.core.computed(action.sequence, self._clock(), measured_s=0.0)

    async def _compute(self, action: device_job.Compute, given: Mapping[str, Array]) -> None:
        loop = asyncio.get_running_loop()
        sequence = action.sequence
        failed, took_s = False, 0.0
        try:
            run = partial(self._processor.run, action.exit, action.start, action.stop, given, action.codec)
            made = await loop.run_in_executor(self._pool, run)
            took_s = made.took_s
        except Exception:  # noqa: BLE001 - whatever the runtime library raises, this task alone has failed
            _LOG.exception("task %d failed on the device", sequence)
            failed = True
        else:
            self._payloads.computed(sequence, made)
        self.core.computed(sequence, self._clock(), measured_s=took_s, failed=failed)
        if (drift := self._own.speed.news()) is not None:
            _LOG.warning("this device takes %.2f times what it took at the start", 1.0 + drift)
        self._act()

    def _carry(self, action: device_job.Carry) -> None:
        if action.unasked is not None and action.answer_s is not None:
            self._answers.foretell(action.answer_s)
        size_bytes = self._uplink.upload(
            self._payloads.upload(action),
            action.deadline_s,
            action.unasked,
            lambda: self._carried(action.sequence),
        )
        self.core.sending(size_bytes)

    def _probed(self) -> None:
        self.core.probed(self._clock())
        self._act()

    def _carried(self, sequence: int) -> None:
        self.core.carried(sequence, self._clock())
        self._act()

    def _finish(self, record: TaskRecord) -> None:
        record = self._payloads.judge(record)
        if self._journal is not None:
            self._written(self._journal.end, record)
        self._on_end(record.counted_from(self._origin_s))

    def _schedule_check(self) -> None:
        if self._check is not None:
            self._check.cancel()
            self._check = None
        due_s = self.core.next_check_s()
        if due_s < math.inf:
            delay_s = max(0.0, due_s - self._clock())
            self._check = asyncio.get_running_loop().call_later(delay_s, self._tick)

    def _tick(self) -> None:
        self.core.tick(self._clock())
        self._act()

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)
