"""Both state machines against peers that say anything that the protocol lets through, in any order, at any time."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.instance import system_of
from offramp.policies.greedy import EdgeOnly, Myopic
from offramp.profile import ExitCoefficients
from offramp.runtime import device_job, edge_job, protocol
from offramp.runtime.device_core import DeviceCore
from offramp.runtime.device_probe import Probes
from offramp.runtime.edge_core import EdgeCore
from offramp.runtime.edge_sessions import Limits
from offramp.runtime.forecast import Forecast
from offramp.runtime.outcomes import End, TaskRecord
from offramp.runtime.own import OwnSystem
from offramp.runtime.processor import Coded
from offramp.runtime.rehearsal import MODEL, SPEC
from offramp.runtime.wire import ProtocolError, wire_of
from offramp.scenario import Scenario
from offramp.task import UNCODED, Task

few = st.integers(0, 6)
moments = st.floats(-0.1, 0.4)
seconds = st.one_of(st.floats(0, 0.5), st.floats(0, 1e7))
signed = st.one_of(st.floats(-0.5, 0.5), st.floats(-1e7, 1e7))
reasons = st.sampled_from(list(protocol.Refusal))
LOGITS = wire_of("x", np.zeros((1, 2), np.float32))

verdicts = st.builds(
    protocol.Verdict,
    sequence=few,
    exit=st.integers(0, 6),
    cut=st.integers(0, 12),
    codec=st.sampled_from([UNCODED, "fp16"]),
    reason=st.one_of(st.none(), reasons),
    device_start_s=signed,
    send_s=signed,
    edge_start_s=signed,
    finish_s=signed,
    bandwidth_bytes_per_s=st.floats(1e-3, 1e12),
)
budgets = st.sampled_from([0.2, 0.8])
standings = st.builds(
    protocol.Standing,
    size=st.integers(1, 3),
    budget_s=budgets,
    exit=st.integers(1, 5),
    cut=st.integers(0, 12),
    codec=st.sampled_from([UNCODED, UNCODED, UNCODED, "fp16"]),
    send_s=seconds,
    edge_start_s=seconds,
    finish_s=st.floats(0, 0.3),
    bandwidth_bytes_per_s=st.floats(1e-3, 1e12),
)
told = st.one_of(
    verdicts,
    standings,
    st.just(protocol.Reconsider()),
    st.builds(
        protocol.Answer, sequence=few, logits=st.builds(lambda: LOGITS), waited_s=seconds, computed_s=seconds
    ),
    st.builds(protocol.Declined, sequence=few, reason=reasons),
)
happenings = st.sampled_from(
    ["up", "silent", "lost", "closing", "tick", "worked", "failed", "carried", "probed"]
)
tasks = st.one_of(st.tuples(st.integers(1, 10), st.floats(1e-3, 1.0)), st.tuples(st.integers(1, 3), budgets))


class Device:
    """A device's state machine whose processor and link end what they do when the fuzzer says so."""

    def __init__(self, exits: tuple[ExitCoefficients, ...]) -> None:
        self.core = DeviceCore(OwnSystem(exits, 10.0, 125_000.0), probes=Probes(steady=False))
        self.now_s = 0.0
        self.taken = 0
        self.ended: Counter[int] = Counter()
        self.records: list[TaskRecord] = []
        self.computing: list[int] = []
        self.carrying: list[int] = []
        self.probing = 0

    def step(self, event: object) -> None:
        """One event; then the books must balance."""
        core, now_s = self.core, self.now_s
        match event:
            case (int(size), float(budget_s)):
                core.submit(self.taken, Task(now_s, size, budget_s, 0), now_s)
                self.taken += 1
            case protocol.Verdict():
                message = protocol.decode_to_device(protocol.encode(event))
                assert isinstance(message, protocol.Verdict)
                core.verdict(message, now_s)
            case protocol.Standing():
                standing = protocol.decode_to_device(protocol.encode(event))
                assert isinstance(standing, protocol.Standing)
                core.standing(standing)
            case protocol.Reconsider():
                core.reconsider()
            case protocol.Answer():
                answer = protocol.decode_to_uploader(protocol.encode(event))
                assert isinstance(answer, protocol.Answer)
                core.answer(answer, now_s)
            case protocol.Declined():
                core.declined(event, now_s)
            case "up":
                core.edge_up(now_s)
            case "silent":
                core.edge_silent(now_s)
            case "lost":
                core.edge_lost(now_s)
            case "closing":
                core.edge_closing()
            case "tick":
                core.tick(now_s)
            case "worked" | "failed" if self.computing:
                core.computed(self.computing.pop(), now_s, measured_s=0.01, failed=event == "failed")
            case "carried" if self.carrying:
                core.carried(self.carrying.pop(), now_s)
            case "probed" if self.probing:
                self.probing -= 1
                core.probed(now_s)
        self.act()

    def act(self) -> None:
        """Begin what is asked for, and hold the books against what has ended."""
        for action in self.core.take():
            match action:
                case device_job.Compute(sequence=sequence):
                    self.computing.append(sequence)
                case device_job.Carry(sequence=sequence):
                    self.carrying.append(sequence)
                case device_job.SendProbe():
                    self.probing += 1
                case device_job.Finished(record):
                    self.ended[record.sequence] += 1
                    self.records.append(record)
                case device_job.Say(message):
                    protocol.decode_from_device(protocol.encode(message))
        assert len(self.computing) <= 1
        assert len(self.carrying) + self.probing <= 1
        ledger = self.core.ledger
        assert ledger.submitted == self.taken == ledger.ended + ledger.in_flight
        assert ledger.ended == len(self.records)
        assert all(times == 1 for times in self.ended.values())
        assert not math.isnan(self.core.next_check_s())


@given(st.lists(st.tuples(moments, st.one_of(tasks, told, happenings, st.just("worked"))), max_size=60))
def test_whatever_an_edge_says_every_task_of_a_device_ends_once(
    four_exits: tuple[ExitCoefficients, ...], events: list[tuple[float, object]]
) -> None:
    device = Device(four_exits)
    for gap_s, event in events:
        device.now_s += max(0.0, gap_s)
        device.step(event)
    # From here on nobody says anything: time alone must end what the edge was left with.
    for _ in range(4 * device.taken + 8):
        if device.core.idle:
            break
        due_s = device.core.next_check_s()
        device.now_s = max(device.now_s, due_s if math.isfinite(due_s) else device.now_s)
        device.step(
            "worked"
            if device.computing
            else "carried"
            if device.carrying
            else "probed"
            if device.probing
            else "tick"
        )
    assert device.core.idle
    assert set(device.ended) == set(range(device.taken))
    for record in device.records:
        in_time = (
            record.measured.finish_s is not None
            and record.measured.finish_s <= record.arrival_s + record.budget_s + 1e-9
        )
        assert (record.end is End.ON_TIME) <= in_time


names = st.sampled_from(["d0", "d1", "d2"])
hellos = st.builds(
    protocol.Hello,
    version=st.sampled_from([protocol.VERSION, protocol.VERSION, protocol.VERSION, protocol.VERSION + 1]),
    device=names,
    epoch=st.integers(0, 2),
    model_sha256=st.sampled_from([MODEL, MODEL, MODEL, "1" * 64]),
    slowdown=st.floats(1e-3, 1e6),
    bandwidth_bytes_per_s=st.floats(1e-3, 1e15),
    link_delay_s=seconds,
    codecs=st.just(()),
    steady=st.booleans(),
)
controls = st.one_of(
    st.builds(
        protocol.Announce,
        sequence=st.one_of(few, st.integers(0, 2**53)),
        size=st.one_of(st.integers(1, 10), st.integers(1, 1_000_000)),
        budget_s=seconds,
        remaining_s=signed,
        decided=st.integers(0, 2**53),
        device_free_in_s=seconds,
        link_free_in_s=seconds,
        slowdown=st.floats(1e-3, 1e6),
        round_trip_s=seconds,
        margin=st.floats(0, 1),
    ),
    st.builds(protocol.Withdraw, sequence=few),
    st.builds(protocol.Sending, size_bytes=st.integers(0, 2**53)),
    st.builds(protocol.Ping, number=few),
    st.just(protocol.Bye()),
    hellos,
)
wires = st.builds(
    lambda size, width, kind: wire_of("x", np.zeros((size, width), kind)),
    st.integers(1, 10),
    st.integers(1, 3),
    st.sampled_from([np.float32, np.float64]),
)
place = {"sequence": few, "exit": st.integers(0, 6), "cut": st.integers(0, 12), "size": st.integers(1, 10)}
uploads = st.one_of(
    st.builds(protocol.Upload, **place, remaining_s=signed, tensors=st.lists(wires, max_size=2).map(tuple)),
    st.builds(
        protocol.CodedUpload,
        **place,
        remaining_s=signed,
        codec=st.just("fp16"),
        payload=st.builds(lambda: memoryview(b"xx")),
    ),
)
begins = st.builds(
    protocol.Begun, budget_s=seconds, slowdown=st.floats(1e-3, 1e6), margin=st.floats(0, 1), upload=uploads
)
HAPPENS = ("gone", "tick", "worked", "failed", "asks", "sends", "begins")


class Edge:
    """An edge's state machine whose workers end when the fuzzer says so."""

    def __init__(self, exits: tuple[ExitCoefficients, ...]) -> None:
        self.limits = Limits(devices=2, queue=6, queue_per_device=4, max_size=10)
        system = system_of(Scenario(devices=1, device_slowdown=1.0), exits)
        forecast = Forecast(system.exits, system.gain, system.network)
        self.core = EdgeCore(
            forecast,
            lambda exit, cut: (SPEC,),
            model_sha256=MODEL,
            policy_name="fuzz",
            interim=Myopic(),
            limits=self.limits,
        )
        self.now_s = 0.0
        self.tokens: dict[str, bytes] = {}
        self.open: set[bytes] = set()
        self.running: list[edge_job.Batch] = []
        self.numbers: Counter[bytes] = Counter()
        self.verdicts: dict[bytes, protocol.Verdict] = {}
        self.standing: dict[bytes, protocol.Standing] = {}
        self.answers: Counter[tuple[bytes, int]] = Counter()

    def step(self, device: str, event: object) -> None:
        """One event; then what is taken must be within the limits."""
        core, token = self.core, self.tokens.get(device, b"nobody knows it!")
        match event:
            case "gone":
                self.standing.pop(token, None)
                core.gone(token, self.now_s)
            case "tick":
                core.tick(self.now_s)
            case "worked" | "failed" if self.running:
                batch = self.running.pop()
                made = protocol.Refusal.INTERNAL if event == "failed" else ("x", np.zeros((1, 2), np.float32))
                core.computed(batch, [made] * len(batch.works), self.now_s, 0.01)
                if event == "worked":
                    core.took(batch, 0.01)
            case "asks" | "sends" | "begins" if token in self.open:
                self.honest(token, event)
            case protocol.Upload() | protocol.CodedUpload():
                message = protocol.decode_from_uploader(protocol.encode(event))
                assert isinstance(message, protocol.Upload | protocol.CodedUpload)
                core.upload(token, message, self.now_s)
            case protocol.Begun():
                begun = protocol.decode_from_uploader(protocol.encode(event))
                assert isinstance(begun, protocol.Begun)
                core.begun(token, begun, self.now_s)
            case protocol.Ping() if event.number % 2:
                ping = protocol.decode_from_uploader(protocol.encode(event))
                assert ping == event
                core.ping(token, event, self.now_s)
            case protocol.Message() if token in self.open or isinstance(event, protocol.Hello):
                self.say(token, protocol.decode_from_device(protocol.encode(event)))
        self.act()

    def honest(self, token: bytes, event: object) -> None:
        """What a device does that announces a task, has it decided and uploads it, or goes by what stands."""
        verdict, standing = self.verdicts.get(token), self.standing.get(token)
        wire = wire_of("x", np.zeros((2, 2), np.float32))
        if event == "sends" and verdict is not None and verdict.exit > 0:
            place = verdict.sequence, verdict.exit, verdict.cut
            self.core.upload(token, protocol.Upload(*place, 2, 0.5, (wire,)), self.now_s)
        elif event == "begins" and standing is not None:
            self.numbers[token] += 1
            place = self.numbers[token], standing.exit, standing.cut
            upload = protocol.Upload(*place, 2, standing.budget_s, (wire,))
            self.core.begun(token, protocol.Begun(standing.budget_s, 1.0, 0.0, upload), self.now_s)
        elif event == "asks":
            self.numbers[token] += 1
            asks = protocol.Announce(self.numbers[token], 2, 1.0, 1.0, 0, 0.0, 0.0, 1.0, 0.0, 0.0)
            self.core.control(token, asks, self.now_s)

    def say(self, token: bytes, message: protocol.FromDevice) -> None:
        """On a control stream: its first message must be a hello, and no other one may be."""
        if not isinstance(message, protocol.Hello) or token in self.open:
            try:
                self.core.control(token, message, self.now_s)
            except ProtocolError:
                assert isinstance(message, protocol.Hello)
            return
        opened = self.core.hello(message, self.now_s)
        if not isinstance(opened, protocol.Refused):
            self.tokens[message.device] = opened
            self.open.add(opened)

    def act(self) -> None:
        """Do what is asked for."""
        for action in self.core.take():
            match action:
                case edge_job.Run(batch, crossed):
                    for work, each in zip(batch.works, crossed, strict=True):
                        assert isinstance(each, Coded) or each["x"].shape == (work.size, 2)
                    self.running.append(batch)
                case edge_job.Foresee():
                    self.core.foresee(action, self.now_s)
                case edge_job.Reply(session, message):
                    assert session in self.open
                    protocol.decode_to_uploader(protocol.encode(message))
                    if isinstance(message, protocol.Answer):
                        self.answers[session, message.sequence] += 1
                case edge_job.Say(session, message):
                    protocol.decode_to_device(protocol.encode(message))
                    self.hear(session, message)
                case edge_job.Hang(session):
                    self.open.discard(session)
                    self.standing.pop(session, None)
                    self.core.gone(session, self.now_s)
                case edge_job.Remake(version):
                    self.core.policy_made(version, EdgeOnly())
        assert self.core.devices <= self.limits.devices
        assert self.core.waiting <= self.limits.queue
        assert len(self.running) <= 1
        assert all(times == 1 for times in self.answers.values())
        assert len(self.standing) <= 1, "decisions stand for who is alone at work"
        counts = self.core.counts
        assert counts.announced == counts.decided + sum(counts.turned_away.values())

    def hear(self, session: bytes, message: protocol.Message) -> None:
        """What an honest device remembers of what it is told."""
        match message:
            case protocol.Verdict():
                self.verdicts[session] = message
            case protocol.Standing():
                self.standing[session] = message
            case protocol.Reconsider():
                self.standing.pop(session, None)


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(
            moments,
            names,
            st.one_of(hellos, controls, uploads, begins, st.sampled_from(HAPPENS)),
        ),
        max_size=50,
    )
)
def test_whatever_devices_say_an_edge_keeps_its_limits_and_answers_once(
    four_exits: tuple[ExitCoefficients, ...], events: list[tuple[float, str, object]]
) -> None:
    edge = Edge(four_exits)
    for gap_s, device, event in events:
        edge.now_s += max(0.0, gap_s)
        edge.step(device, event)
    # A silent system is empty in the end.
    for _ in range(12):
        edge.now_s += 1e8
        edge.step("d0", "tick")
        if edge.running:
            edge.step("d0", "worked")
    assert edge.core.idle
    assert edge.core.devices == 0
