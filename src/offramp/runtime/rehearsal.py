"""The runtime's own state machines in memory, on a calendar of events instead of clocks and sockets.

What the timing model `network` leaves out is here: the device that finishes a task alone, the edge that turns work
away, margins, estimates of speed. Computing and uploads take exactly what the system says they take, unless a fault is
injected; every message goes through the codec, with two numbers an input in the place of tensors.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from offramp.instance import Instance
from offramp.link import Link, RateLink
from offramp.link_estimate import JOINED_S
from offramp.model.tensors import TensorSpec
from offramp.options import System
from offramp.policies import Policy
from offramp.policies.greedy import Myopic
from offramp.runtime import device_job, edge_job
from offramp.runtime.device_core import DeviceCore
from offramp.runtime.device_probe import Probes
from offramp.runtime.edge_core import EdgeCore
from offramp.runtime.edge_sessions import Limits
from offramp.runtime.forecast import Forecast
from offramp.runtime.outcomes import TaskRecord
from offramp.runtime.own import OwnSystem
from offramp.runtime.processor import Coded
from offramp.runtime.protocol import (
    VERSION,
    Answer,
    Begun,
    Closing,
    CodedUpload,
    Declined,
    Hello,
    Ping,
    Reconsider,
    Refused,
    Standing,
    Upload,
    Verdict,
    decode_from_device,
    decode_from_uploader,
    decode_to_device,
    decode_to_uploader,
    encode,
)
from offramp.runtime.wire import wire_of
from offramp.runtime.workload import kinds_of
from offramp.task import UNCODED

MODEL = "0" * 64
SPEC = TensorSpec("x", "float32", (None, 2))


@dataclass
class Device:
    """One device: its state machine, its link, and what became of its tasks."""

    number: int
    core: DeviceCore
    link: Link
    records: dict[int, TaskRecord] = field(default_factory=dict)
    token: bytes | None = None
    checked_s: float = float("inf")
    kinds: tuple[tuple[int, float], ...] = ()


class Spread(Protocol):
    """By how much computations differ from what is predicted."""

    def head(self, device: int, now_s: float) -> float:
        """Factor, > 0, on the device's next computation, which begins now."""
        ...

    def tail(self, now_s: float) -> float:
        """Factor, > 0, on the edge's next computation, which begins now."""
        ...


class Rehearsal:
    """A system's devices against its edge.

    `fallback`, `limits`: see `DeviceCore` and `EdgeCore`; `links` in place of those that the system describes;
    `spread`, if computations are not to take exactly what they should; `believed`, what devices and edge take the
    system for at first, if that is not what it is.

    Attributes:
        now_s: the present instant.
        cut_off, hung: faults, by the instant: no message crosses, the edge computes nothing.
    """

    def __init__(
        self,
        system: System,
        policy: Policy,
        *,
        fallback: bool = True,
        limits: Limits | None = None,
        links: Sequence[Link] | None = None,
        spread: Spread | None = None,
        believed: System | None = None,
    ) -> None:
        self._believed = believed or system
        self._links = links
        self._spread = spread
        self.system, self.network = system, system.network
        self.now_s = 0.0
        self.cut_off: Callable[[float], bool] = lambda now_s: False
        self.hung: Callable[[float], bool] = lambda now_s: False
        self._calendar: list[tuple[float, int, int, Callable[[], None]]] = []
        self._ticket = itertools.count()
        self.edge = EdgeCore(
            Forecast(self._believed.exits, system.gain, self._believed.network),
            lambda exit, cut: (SPEC,),
            model_sha256=MODEL,
            policy_name="test",
            interim=Myopic(),
            limits=limits,
        )
        self._policy = policy
        self.devices = [self._device(number, fallback) for number in range(system.devices)]

    def _device(self, number: int, fallback: bool) -> Device:
        slowdown, bandwidth = self._believed.kind(number)
        own = OwnSystem(self._believed.exits, slowdown, bandwidth, self._believed.network.link_delay_s)
        own.use_gain(self.system.gain)
        link = RateLink(bandwidth, self.network.link_delay_s) if self._links is None else self._links[number]
        probes = None if self._links is None else Probes(steady=link.steady)
        return Device(number, DeviceCore(own, fallback=fallback, probes=probes), link)

    def at(self, instant_s: float, do: Callable[[], None], rank: int = 1) -> None:
        """Do something at an instant; of one instant's events, lower ranks come first."""
        heapq.heappush(self._calendar, (instant_s, rank, next(self._ticket), do))

    def connect(self, device: Device, epoch: int = 1) -> None:
        """Open a session for a device, or find out that it is refused."""
        slowdown, bandwidth = self._believed.kind(device.number)
        name = f"d{device.number}"
        codecs = tuple(sorted({coded.codec for exit in self.system.exits for coded in exit.codecs}))
        link = device.link
        hello = Hello(
            VERSION,
            name,
            epoch,
            MODEL,
            slowdown,
            bandwidth,
            link.delay_s,
            codecs,
            link.steady,
            device.kinds,
        )
        opened = self.edge.hello(hello, self.now_s)
        assert not isinstance(opened, Refused), opened
        device.token = opened
        device.core.edge_up(self.now_s)
        self.act()

    def disconnect(self, device: Device) -> None:
        """Both sides notice that a connection is gone."""
        token, device.token = device.token, None
        if token is not None:
            self.edge.gone(token, self.now_s)
        device.core.edge_lost(self.now_s)
        self.act()

    def play(self, instance: Instance) -> None:
        """Submit the instance's tasks; task n has the sequence n on its device."""
        for number, task in enumerate(instance.tasks):
            device = self.devices[task.device]

            def submit(device: Device = device, number: int = number) -> None:
                device.core.submit(number, instance.tasks[number], self.now_s)
                self.act()

            self.at(task.arrival_s, submit, rank=0)

    def run(self, until_s: float = float("inf")) -> None:
        """Let time pass until nothing more happens, or until an instant."""
        while self._calendar and self._calendar[0][0] <= until_s:
            self.now_s, _, _, do = heapq.heappop(self._calendar)
            do()
            self.act()

    def act(self) -> None:
        """Carry out what the cores ask for."""
        for action in self.edge.take():
            self._edge_action(action)
        for device in self.devices:
            for asked in device.core.take():
                self._device_action(device, asked)
            self._check_again(device)

    def _check_again(self, device: Device) -> None:
        due_s = max(device.core.next_check_s(), self.now_s)
        if due_s == device.checked_s or due_s == float("inf"):
            return
        device.checked_s = due_s

        def check() -> None:
            device.checked_s = float("inf")
            device.core.tick(self.now_s)

        self.at(due_s, check, rank=3)

    def _edge_action(self, action: edge_job.Action) -> None:
        match action:
            case edge_job.Remake(version, _):
                self.edge.policy_made(version, self._policy)
            case edge_job.Say(session, message) | edge_job.Reply(session, message):
                slow = isinstance(message, Answer)
                delay_s = self.network.answer_s if slow else self.network.decision_s / 2
                device = next((d for d in self.devices if d.token == session), None)
                frame = encode(message)
                if device is not None and not self.cut_off(self.now_s):
                    self.at(self.now_s + delay_s, lambda: self._hear(device, session, frame))
            case edge_job.Foresee():
                self.at(self.now_s + self.network.answer_s, lambda: self.edge.foresee(action, self.now_s))
            case edge_job.Run(batch, crossed):
                assert len(crossed) == len(batch.works) <= self.network.max_batch
                assert len({(work.decision.exit, work.decision.cut) for work in batch.works}) == 1
                assert all(isinstance(each, Coded) or set(each) == {"x"} for each in crossed)
                tail_s = self.system.batch_s(batch.tasks)
                tail_s *= 1.0 if self._spread is None else self._spread.tail(self.now_s)

                def done() -> None:
                    logits = [("x", np.zeros((work.size, 2), np.float32)) for work in batch.works]
                    self.edge.computed(batch, logits, self.now_s, tail_s)
                    self.edge.took(batch, tail_s)

                if not self.hung(self.now_s):
                    self.at(self.now_s + tail_s, done, rank=0)

    def _hear(self, device: Device, session: bytes, frame: bytes) -> None:
        if device.token != session:
            return
        try:
            message = decode_to_device(frame)
        except Exception:  # noqa: BLE001 - the other stream's
            reply = decode_to_uploader(frame)
            if isinstance(reply, Answer):
                device.core.answer(reply, self.now_s)
            elif isinstance(reply, Declined):
                device.core.declined(reply, self.now_s)
            return
        match message:
            case Verdict():
                device.core.verdict(message, self.now_s)
            case Standing():
                device.core.standing(message)
            case Reconsider():
                device.core.reconsider()
            case Closing():
                device.core.edge_closing()

    def _device_action(self, device: Device, action: device_job.Action) -> None:
        match action:
            case device_job.Finished(record):
                assert record.sequence not in device.records, "a task ended twice"
                device.records[record.sequence] = record
            case device_job.Say(message):
                frame, token = encode(message), device.token
                if token is None or self.cut_off(self.now_s):
                    return
                delay_s = self.network.decision_s / 2
                self.at(
                    self.now_s + delay_s,
                    lambda: self.edge.control(token, decode_from_device(frame), self.now_s),
                )
            case device_job.Compute():
                took_s = self._head_s(device, action)
                self.at(
                    self.now_s + took_s,
                    lambda: device.core.computed(action.sequence, self.now_s, measured_s=took_s),
                )
            case device_job.Carry():
                self._carry(device, action)
            case device_job.SendProbe(size_bytes):
                crossed_s = device.link.carry(self.now_s, size_bytes)
                device.core.sending(size_bytes)
                self.at(crossed_s, lambda: device.core.probed(self.now_s))
                self.at(crossed_s + device.link.delay_s, lambda: self._probed(device), rank=2)

    def _probed(self, device: Device) -> None:
        if device.token is not None and not self.cut_off(self.now_s):
            self.edge.probe(device.token, self.now_s)

    def _head_s(self, device: Device, action: device_job.Compute) -> float:
        size = device.core.size_of(action.sequence)
        options = self.system.options(device.number, size)
        stop = options.index(action.exit, action.stop, action.codec)
        head_s = float(options.head_s[stop] - options.head_s[options.index(action.exit, action.start)])
        return head_s if self._spread is None else head_s * self._spread.head(device.number, self.now_s)

    def _carry(self, device: Device, action: device_job.Carry) -> None:
        options = self.system.options(device.number, action.size)
        index = options.index(action.exit, action.cut, action.codec)
        size_bytes = options.upload_s[index] * self.system.kind(device.number)[1]
        crossed_s = device.link.carry(self.now_s, size_bytes)
        there_s = crossed_s + device.link.delay_s
        device.core.sending(math.ceil(size_bytes))
        place = (action.sequence, action.exit, action.cut, action.size, action.deadline_s - there_s)
        upload: Upload | CodedUpload
        if action.codec == UNCODED:
            upload = Upload(*place, (wire_of("x", np.zeros((action.size, 2), np.float32)),))
        else:
            upload = CodedUpload(*place, action.codec, memoryview(b"packed"))
        frame = encode(upload if action.unasked is None else action.unasked.begun(upload))
        token = device.token
        self.at(crossed_s, lambda: device.core.carried(action.sequence, self.now_s))

        def arrive() -> None:
            message = decode_from_uploader(frame)
            if token is None or self.cut_off(self.now_s):
                return
            if isinstance(message, Begun):
                self.edge.begun(token, message, self.now_s)
            else:
                assert isinstance(message, Upload | CodedUpload)
                self.edge.upload(token, message, self.now_s)

        self.at(there_s, arrive, rank=2)

    def ping(self, device: Device) -> None:
        """A sign of life on the control stream."""
        if device.token is not None and not self.cut_off(self.now_s):
            self.edge.control(device.token, Ping(0), self.now_s)


def rehearse(
    instance: Instance,
    policy: Policy,
    spread: Spread | None = None,
    believed: System | None = None,
    links: Sequence[Link] | None = None,
) -> tuple[TaskRecord, ...]:
    """What becomes of an instance's tasks if nothing goes wrong: `records[n]` is of task n; instants of the stream."""
    rehearsal = Rehearsal(instance.system, policy, spread=spread, believed=believed, links=links)
    if links is not None:
        rehearsal.now_s = -JOINED_S
    for device in rehearsal.devices:
        device.core.expect_tasks(rehearsal.now_s)
        device.kinds = kinds_of(task for task in instance.tasks if task.device == device.number)
        rehearsal.connect(device)
    rehearsal.play(instance)
    rehearsal.run()
    return tuple(rehearsal.devices[task.device].records[number] for number, task in enumerate(instance.tasks))
