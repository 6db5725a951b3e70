"""Nobody takes part without a certificate in force that says who they are; hostile peers cost the others nothing."""

from __future__ import annotations

import datetime as dt
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from cryptography import x509
from test_runtime_processes import Running, an_edge, balanced, device_arguments, running, share

from offramp.errors import OfframpError
from offramp.model.bundle import load_bundle
from offramp.runtime import certificates
from offramp.runtime.protocol import (
    VERSION,
    Announce,
    Attach,
    Hello,
    Message,
    Ping,
    Pong,
    Refusal,
    Refused,
    Upload,
    Verdict,
    Welcome,
    decode_to_device,
    decode_to_uploader,
    encode,
)
from offramp.runtime.wire import ProtocolError, wire_of

MODEL = load_bundle(None).model.sha256


def hello(device: str, epoch: int = 1) -> Hello:
    return Hello(VERSION, device, epoch, MODEL, 1.0, 125_000.0, 0.0, (), True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    certificates.init(folder)
    certificates.issue(folder, "edge", ["127.0.0.1"])
    for name in ("a", "b", "gone"):
        certificates.issue(folder, name, [])
    return folder


@pytest.fixture(scope="module")
def secured(authority: Path) -> Iterator[tuple[Running, str]]:
    arguments = ["edge", "--port", "0", "--policy", "edge-only", "--supervised", "--certs", str(authority)]
    with running(*arguments) as edge:
        yield edge, f"127.0.0.1:{edge.event('ready')['port']}"


def channel_as(folder: Path, name: str, address: str) -> grpc.Channel:
    identity = certificates.load_identity(folder, name)
    return channel_with(address, identity.authority, identity.key, identity.certificate)


def channel_with(address: str, *pair: bytes | None) -> grpc.Channel:
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(*pair))


def first_answer(channel: grpc.Channel, messages: list[Message]) -> Any:
    """What the edge says first on a control stream, or the status that the stream ends with."""
    with channel:
        call = channel.stream_stream("/offramp.Edge/Control")(
            iter([encode(message) for message in messages]), timeout=5
        )
        try:
            return decode_to_device(next(call))
        except grpc.RpcError as error:
            return error.code()


def test_a_device_with_its_own_certificate_is_welcome(secured: tuple[Running, str], authority: Path) -> None:
    welcome = first_answer(channel_as(authority, "a", secured[1]), [hello("a")])
    assert isinstance(welcome, Welcome)


def test_a_device_cannot_claim_to_be_another(secured: tuple[Running, str], authority: Path) -> None:
    refused = first_answer(channel_as(authority, "a", secured[1]), [hello("b")])
    assert isinstance(refused, Refused)
    assert refused.reason is Refusal.IDENTITY


def test_nobody_comes_in_without_a_certificate_in_force(
    secured: tuple[Running, str], authority: Path, tmp_path: Path
) -> None:
    _, address = secured
    trusted = (authority / "ca.pem").read_bytes()
    unavailable = grpc.StatusCode.UNAVAILABLE
    assert first_answer(channel_with(address, trusted), [hello("a")]) is unavailable
    assert first_answer(grpc.insecure_channel(address), [hello("a")]) is unavailable
    foreign = tmp_path / "foreign"
    certificates.init(foreign)
    certificates.issue(foreign, "a", [])
    pair = ((foreign / "a.key").read_bytes(), (foreign / "a.pem").read_bytes())
    assert first_answer(channel_with(address, trusted, *pair), [hello("a")]) is unavailable

    old = tmp_path / "old"
    old.mkdir()
    for name in ("ca.pem", "ca.key", "crl.pem"):
        (old / name).write_bytes((authority / name).read_bytes())
    certificates.issue(old, "a", [], days=1, now=dt.datetime.now(dt.UTC) - dt.timedelta(days=10))
    pair = ((old / "a.key").read_bytes(), (old / "a.pem").read_bytes())
    assert first_answer(channel_with(address, trusted, *pair), [hello("a")]) is unavailable
    with pytest.raises(OfframpError, match="has expired"):
        certificates.load_identity(old, "a")


def test_a_revoked_device_is_cut_off_and_stays_out(secured: tuple[Running, str], authority: Path) -> None:
    identity = certificates.load_identity(authority, "gone")
    pair = (identity.authority, identity.key, identity.certificate)
    with channel_with(secured[1], *pair) as channel:
        outbox = Outbox()
        call = channel.stream_stream("/offramp.Edge/Control")(outbox)
        outbox.put(hello("gone"))
        assert isinstance(decode_to_device(next(call)), Welcome)
        certificates.revoke(authority, "gone")
        # The stream ends without a word of the device's, which could also only come from its silence.
        started_s = time.monotonic()
        with pytest.raises((StopIteration, grpc.RpcError)):
            next(call)
        assert time.monotonic() - started_s < 1.5
        outbox.close()
    refused = first_answer(channel_with(secured[1], *pair), [hello("gone")])
    assert isinstance(refused, Refused)
    assert refused.reason is Refusal.REVOKED


def test_a_stream_of_tensors_is_its_sessions_devices(secured: tuple[Running, str], authority: Path) -> None:
    _, address = secured
    with channel_as(authority, "a", address) as mine, channel_as(authority, "b", address) as other:
        outbox = Outbox()
        call = mine.stream_stream("/offramp.Edge/Control")(outbox)
        outbox.put(hello("a", epoch=2))
        welcome = decode_to_device(next(call))
        assert isinstance(welcome, Welcome)
        stolen = other.stream_stream("/offramp.Edge/Tensors")(
            iter([encode(Attach(welcome.session))]), timeout=5
        )
        with pytest.raises(grpc.RpcError) as refused:
            next(stolen)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        outbox.close()


def test_every_refusal_was_logged(authority: Path, tmp_path: Path) -> None:
    arguments = ["edge", "--port", "0", "--supervised", "--certs", str(authority)]
    with running(*arguments) as edge:
        address = f"127.0.0.1:{edge.event('ready')['port']}"
        first_answer(channel_as(authority, "a", address), [hello("b")])
        first_answer(channel_with(address, (authority / "ca.pem").read_bytes()), [hello("a")])
        edge.process.terminate()
        _, _, err = edge.finish()
    assert "identity" in err
    assert "Handshake failed" in err


def test_edge_and_device_work_under_tls(
    secured: tuple[Running, str], authority: Path, tmp_path: Path
) -> None:
    tasks_file = share(tmp_path / "share.npz", tasks=5, gap_s=0.1)
    arguments = [*device_arguments(secured[1], tasks_file, "b"), "--certs", str(authority)]
    with running(*arguments) as device:
        device.event("ready")
        device.order(start_s=time.monotonic())
        summary = device.event("done")["summary"]
    assert balanced(summary)
    assert summary["submitted"] == 5
    assert summary["on_time"] > 0


def test_an_authority_keeps_its_key_to_itself(authority: Path, tmp_path: Path) -> None:
    for file in authority.glob("*.key"):
        assert file.stat().st_mode & 0o077 == 0
    with pytest.raises(OfframpError, match="holds an authority already"):
        certificates.init(authority)
    with pytest.raises(OfframpError, match="has a certificate"):
        certificates.issue(authority, "a", [])
    with pytest.raises(OfframpError, match="name = "):
        certificates.issue(authority, "../x", [])
    with pytest.raises(OfframpError, match="cannot be read"):
        certificates.issue(tmp_path, "a", [])
    leaf = x509.load_pem_x509_certificate((authority / "a.pem").read_bytes())
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


class Outbox:
    """Messages for a stream that stays open; iterating it blocks until there is one."""

    def __init__(self) -> None:
        import queue

        self._queue: queue.Queue[bytes | None] = queue.Queue()

    def put(self, message: Message | bytes) -> None:
        self._queue.put(message if isinstance(message, bytes) else encode(message))

    def close(self) -> None:
        self._queue.put(None)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        frame = self._queue.get()
        if frame is None:
            raise StopIteration
        return frame


def hostile_frames(rng: random.Random, count: int) -> Iterator[bytes]:
    """Valid messages with flipped, cut and added bytes, noise, deep nesting and oversize."""
    array = np.zeros((2, 32, 32, 3), np.uint8)
    valid = [
        encode(hello("x")),
        encode(Announce(0, 2, 1.0, 1.0, 0, 0.0, 0.0, 1.0, 0.0, 0.0)),
        encode(Attach(bytes(16))),
        encode(Upload(0, 1, 0, 2, 1.0, (wire_of("image", array),))),
        encode(Ping(1)),
    ]
    for _ in range(count):
        frame = bytearray(rng.choice(valid))
        kind = rng.randrange(5)
        if kind == 0:
            for _ in range(rng.randrange(1, 5)):
                frame[rng.randrange(len(frame))] = rng.randrange(256)
        elif kind == 1:
            del frame[rng.randrange(len(frame)) :]
        elif kind == 2:
            frame = bytearray(rng.randbytes(rng.randrange(200)))
        elif kind == 3:
            frame = bytearray(b"\x91" * 5000)
        else:
            frame += rng.randbytes(rng.randrange(1, 40_000))
        yield bytes(frame)


def test_hostile_peers_do_not_disturb_a_device(tmp_path: Path) -> None:
    rng = random.Random(3)
    tasks_file = share(tmp_path / "share.npz", tasks=40, gap_s=0.1)
    with an_edge() as (edge, address), running(*device_arguments(address, tasks_file)) as device:
        device.event("ready")
        device.order(start_s=time.monotonic() + 0.1)
        device.event("task")
        host, port = address.split(":")
        idle = [socket.create_connection((host, int(port))) for _ in range(50)]
        with grpc.insecure_channel(address) as channel:
            for frame in hostile_frames(rng, 300):
                for method in ("Control", "Tensors"):
                    call = channel.stream_stream(f"/offramp.Edge/{method}")(iter([frame]), timeout=5)
                    answers = list(_answers(call))
                    assert len(answers) <= 1
                    # A peer that is let in said hello well; what it is told is a message of the protocol.
                    for answer in answers:
                        assert isinstance(decode_to_device(answer), Welcome | Refused)
        for connection in idle:
            connection.close()
        summary = device.event("done")["summary"]
        assert edge.process.poll() is None
    assert balanced(summary)
    assert summary["failed"] == 0
    assert summary["on_time"] >= 20


def _answers(call: Any) -> Iterator[bytes]:
    try:
        yield from call
    except grpc.RpcError:
        return


def test_an_oversize_frame_is_refused_and_the_edge_stays(tmp_path: Path) -> None:
    with an_edge() as (edge, address):
        with grpc.insecure_channel(address, options=[("grpc.max_send_message_length", -1)]) as channel:
            outbox = Outbox()
            call = channel.stream_stream("/offramp.Edge/Control")(outbox)
            outbox.put(hello("big"))
            welcome = decode_to_device(next(call))
            assert isinstance(welcome, Welcome)
            tensors = channel.stream_stream("/offramp.Edge/Tensors")(
                iter([encode(Attach(welcome.session)), bytes(64 * 1024 * 1024)]), timeout=10
            )
            with pytest.raises(grpc.RpcError) as refused:
                list(tensors)
            assert refused.value.code() in (
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                grpc.StatusCode.INVALID_ARGUMENT,
            )
            outbox.put(Ping(7))
            assert decode_to_device(next(call)) == Pong(7)
            outbox.put(Announce(0, 2, 2.0, 2.0, 0, 0.0, 0.0, 1.0, 0.0, 0.0))
            verdict = decode_to_device(next(call))
            assert isinstance(verdict, Verdict)
            outbox.close()
        assert edge.process.poll() is None


def test_the_stream_of_tensors_has_signs_of_life_of_its_own(tmp_path: Path) -> None:
    with an_edge() as (_, address), grpc.insecure_channel(address) as channel:
        control, tensors = Outbox(), Outbox()
        call = channel.stream_stream("/offramp.Edge/Control")(control)
        control.put(hello("alive"))
        welcome = decode_to_device(next(call))
        assert isinstance(welcome, Welcome)
        answers = channel.stream_stream("/offramp.Edge/Tensors")(tensors, timeout=30)
        tensors.put(Attach(welcome.session))
        for number in range(3):
            tensors.put(Ping(number))
            assert decode_to_uploader(next(answers)) == Pong(number)
        tensors.close()
        control.close()


def test_a_compressed_bomb_is_no_message(tmp_path: Path) -> None:
    with an_edge() as (edge, address):
        options = [("grpc.max_send_message_length", -1)]
        with grpc.insecure_channel(address, options=options, compression=grpc.Compression.Gzip) as channel:
            call = channel.stream_stream("/offramp.Edge/Control")(
                iter([bytes(200 * 1024 * 1024)]), timeout=10
            )
            with pytest.raises((StopIteration, grpc.RpcError, ProtocolError)):
                decode_to_uploader(next(call))
        assert edge.process.poll() is None
        status = Path(f"/proc/{edge.process.pid}/status").read_text()
        peak_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
        assert peak_kb < 400_000
