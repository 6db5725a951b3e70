"""What the edge refuses, and that a refusal costs the others nothing."""

from __future__ import annotations

import numpy as np
import pytest

from offramp.instance import system_of
from offramp.policies.greedy import EdgeOnly
from offramp.profile import ExitCoefficients
from offramp.runtime.client_protocol import Offer
from offramp.runtime.edge_job import Remake, Reply, Run, Say
from offramp.runtime.edge_sessions import Limits
from offramp.runtime.protocol import (
    VERSION,
    Announce,
    Declined,
    Hello,
    Ping,
    Pong,
    Refusal,
    Refused,
    Upload,
    Verdict,
)
from offramp.runtime.rehearsal import MODEL, SPEC, Rehearsal
from offramp.runtime.wire import ProtocolError, wire_of
from offramp.scenario import Scenario

HELLO = Hello(VERSION, "d0", 1, MODEL, 1.0, 125_000.0, 0.0, (), True)


class Bench:
    """An edge that is spoken to message by message."""

    def __init__(self, exits: tuple[ExitCoefficients, ...], **limits: float) -> None:
        system = system_of(Scenario(devices=1, device_slowdown=1.0), exits)
        self.edge = Rehearsal(system, EdgeOnly(), limits=Limits(**limits)).edge  # type: ignore[arg-type]
        self.now_s = 100.0
        self.token = self.hello(HELLO)

    def hello(self, hello: Hello) -> bytes:
        opened = self.edge.hello(hello, self.now_s)
        assert isinstance(opened, bytes), opened
        for action in self.edge.take():
            if isinstance(action, Remake):
                self.edge.policy_made(action.version, EdgeOnly())
        return opened

    def announce(
        self, sequence: int, size: int = 2, budget_s: float = 1.0, token: bytes | None = None
    ) -> Verdict:
        message = Announce(sequence, size, budget_s, budget_s, 0, 0.0, 0.0, 1.0, 0.0, 0.0)
        self.edge.control(token or self.token, message, self.now_s)
        said, *_ = self.edge.take()  # what may stand from now on follows
        assert isinstance(said, Say)
        assert isinstance(said.message, Verdict)
        return said.message

    def upload(
        self, verdict: Verdict, size: int = 2, remaining_s: float = 0.5, **changes: object
    ) -> list[object]:
        wire = wire_of("x", np.zeros((size, 2), np.float32))
        upload = Upload(verdict.sequence, verdict.exit, verdict.cut, size, remaining_s, (wire,))
        fields = {name: getattr(upload, name) for name in upload.__struct_fields__} | changes
        self.edge.upload(self.token, Upload(**fields), self.now_s)
        return list(self.edge.take())


@pytest.fixture
def bench(four_exits: tuple[ExitCoefficients, ...]) -> Bench:
    return Bench(four_exits)


def declined(actions: list[object]) -> Refusal:
    (reply,) = actions
    assert isinstance(reply, Reply)
    assert isinstance(reply.message, Declined)
    return reply.message.reason


def test_an_upload_counts_once(bench: Bench) -> None:
    verdict = bench.announce(0)
    assert verdict.exit > 0
    (run,) = bench.upload(verdict)
    assert isinstance(run, Run)
    assert declined(bench.upload(verdict)) is Refusal.REPEATED


def test_nothing_is_decided_twice_also_after_a_reconnection(bench: Bench) -> None:
    assert bench.announce(5).exit > 0
    assert bench.announce(5).reason is Refusal.REPEATED
    assert bench.announce(4).reason is Refusal.REPEATED
    bench.token = bench.hello(HELLO)
    assert bench.announce(5).reason is Refusal.REPEATED
    assert bench.announce(6).exit > 0
    bench.edge.gone(bench.token, bench.now_s)
    bench.token = bench.hello(changed(HELLO, epoch=2))
    assert bench.announce(0).exit > 0


def changed(hello: Hello, **changes: object) -> Hello:
    fields = {name: getattr(hello, name) for name in hello.__struct_fields__} | changes
    return Hello(**fields)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cut": 3}, Refusal.UNKNOWN_TASK),
        ({"exit": 9}, Refusal.UNKNOWN_TASK),
        ({"size": 3}, Refusal.UNKNOWN_TASK),
        ({"sequence": 77}, Refusal.UNKNOWN_TASK),
        ({"sequence": 77, "remaining_s": -1.0}, Refusal.EXPIRED),
        ({"remaining_s": -0.001}, Refusal.EXPIRED),
        ({"remaining_s": 1e-5}, Refusal.TOO_LATE),
        ({"tensors": ()}, Refusal.BAD_TENSORS),
        ({"tensors": (wire_of("x", np.zeros((2, 3), np.float32)),)}, Refusal.BAD_TENSORS),
        ({"tensors": (wire_of("x", np.full((2, 2), np.nan, np.float32)),)}, Refusal.BAD_TENSORS),
    ],
)
def test_uploads_that_do_not_fit_are_declined(
    bench: Bench, changes: dict[str, object], reason: Refusal
) -> None:
    verdict = bench.announce(0)
    assert declined(bench.upload(verdict, **changes)) is reason
    # The edge is none the worse for it.
    (run,) = bench.upload(bench.announce(1))
    assert isinstance(run, Run)


def test_a_session_is_refused_for_a_reason(bench: Bench, four_exits: tuple[ExitCoefficients, ...]) -> None:
    def reason(hello: Hello) -> Refusal:
        opened = bench.edge.hello(hello, bench.now_s)
        assert isinstance(opened, Refused)
        return opened.reason

    assert reason(changed(HELLO, version=VERSION + 1)) is Refusal.VERSION
    assert reason(changed(HELLO, model_sha256="1" * 64)) is Refusal.MODEL
    assert reason(changed(HELLO, epoch=2)) is Refusal.ID_IN_USE
    full = Bench(four_exits, devices=1)
    opened = full.edge.hello(changed(HELLO, device="other"), full.now_s)
    assert isinstance(opened, Refused)
    assert opened.reason is Refusal.FULL
    with pytest.raises(ProtocolError):
        bench.edge.control(bench.token, HELLO, bench.now_s)


def test_one_device_cannot_take_all_the_room(four_exits: tuple[ExitCoefficients, ...]) -> None:
    bench = Bench(four_exits, queue_per_device=3)
    other = bench.hello(changed(HELLO, device="d1"))
    verdicts = [bench.announce(n, budget_s=60.0) for n in range(6)]
    assert [verdict.reason for verdict in verdicts] == [None] * 3 + [Refusal.OVERLOADED] * 3
    assert bench.announce(0, budget_s=60.0, token=other).exit > 0


def test_a_flood_of_announcements_is_turned_away(four_exits: tuple[ExitCoefficients, ...]) -> None:
    bench = Bench(four_exits, announcements_per_s=10.0)
    reasons = [bench.announce(n, budget_s=1e-3).reason for n in range(30)]
    assert reasons.count(Refusal.OVERLOADED) == 20
    bench.now_s += 0.5
    reasons = [bench.announce(n, budget_s=1e-3).reason for n in range(30, 40)]
    assert reasons.count(Refusal.OVERLOADED) == 5


def test_a_program_on_the_edges_machine_may_offer_ten_times_as_much(
    four_exits: tuple[ExitCoefficients, ...],
) -> None:
    bench = Bench(four_exits, announcements_per_s=10.0)
    wire = wire_of(SPEC.name, np.zeros((1, 2), np.float32))
    for number in range(150):
        bench.edge.offer(bench.token, Offer(number, 1, 1e-3, 1e-3, 0.0, (wire,)), bench.now_s)
    assert bench.edge.counts.turned_away[Refusal.OVERLOADED] == 50


def test_a_silent_device_makes_room(bench: Bench) -> None:
    verdict = bench.announce(0)
    bench.now_s += 1.0
    bench.edge.control(bench.token, Ping(0), bench.now_s)
    bench.edge.tick(bench.now_s + 1.5)
    assert bench.edge.devices == 1
    bench.edge.tick(bench.now_s + 2.5)
    assert bench.edge.devices == 0
    bench.edge.take()
    assert bench.upload(verdict) == []
    assert bench.edge.idle


def test_a_ping_is_answered_on_the_stream_on_which_it_comes(bench: Bench) -> None:
    bench.edge.take()
    bench.edge.control(bench.token, Ping(1), bench.now_s)
    bench.edge.ping(bench.token, Ping(2), bench.now_s)
    bench.edge.ping(b"nobody knows it!", Ping(3), bench.now_s)
    assert bench.edge.take() == [Say(bench.token, Pong(1)), Reply(bench.token, Pong(2))]
    bench.now_s += 1.0
    bench.edge.ping(bench.token, Ping(4), bench.now_s)
    bench.edge.tick(bench.now_s + 1.5)
    assert bench.edge.devices == 1


def test_too_large_a_task_is_turned_away(four_exits: tuple[ExitCoefficients, ...]) -> None:
    bench = Bench(four_exits, max_size=4)
    assert bench.announce(0, size=5, budget_s=60.0).reason is Refusal.TOO_LARGE
    assert SPEC.shape_at(4) == (4, 2)


def test_a_draining_edge_ends_what_it_has(bench: Bench) -> None:
    verdict = bench.announce(0)
    bench.edge.drain()
    bench.edge.take()
    assert bench.announce(1).reason is Refusal.DRAINING
    assert not bench.edge.idle
    (run,) = bench.upload(verdict)
    assert isinstance(run, Run)
    bench.edge.computed(run.batch, [("x", np.zeros((2, 2), np.float32))], bench.now_s, 0.01)
    assert bench.edge.idle
