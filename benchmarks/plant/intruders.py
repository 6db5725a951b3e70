"""Who must not come in under mutual TLS: each tries, is refused, and the edge's log says so."""

from __future__ import annotations

import asyncio
import datetime as dt
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np

from offramp.model.bundle import load_bundle
from offramp.runtime import certificates
from offramp.runtime.protocol import (
    VERSION,
    Announce,
    Attach,
    Declined,
    Hello,
    Refusal,
    Upload,
    Verdict,
    Welcome,
    decode_to_device,
    encode,
)
from offramp.runtime.wire import wires_of
from plant.hostile_peers import ANSWER_S, Session, first_word
from plant.processes import Command
from plant.report import Report
from plant.site import Load, Site, certify

FEW = Load(tasks=3)
SIZE, BUDGET_S = 2, 3.0


def intruders(there: Site, report: Report) -> None:
    """Every one of them against an edge with certificates."""
    certs = certify(there.folder, ["a", "b", "gone", "old"], ["127.0.0.1"])
    foreign = certify(there.folder / "elsewhere", ["a"], ["127.0.0.1"])
    edge = there.start_edge("--certs", str(certs), policy="edge-only")
    revoked = there.folder / "revoked"
    shutil.copytree(certs, revoked)
    offramp("certs", "revoke", str(certs), "gone")

    def kept(name: str, pair: tuple[Path, str], authority: Path) -> Path:
        """A folder in which a device of this name finds that certificate and that authority."""
        folder = there.folder / f"of-{len(list(there.folder.iterdir()))}"
        folder.mkdir()
        shutil.copy(authority / "ca.pem", folder / "ca.pem")
        for suffix in ("pem", "key"):
            shutil.copy(pair[0] / f"{pair[1]}.{suffix}", folder / f"{name}.{suffix}")
        return folder

    expired = there.folder / "expired"
    shutil.copytree(certs, expired)
    for suffix in ("pem", "key"):
        (expired / f"old.{suffix}").unlink()
    certificates.issue(expired, "old", [], days=1, now=dt.datetime.now(dt.UTC) - dt.timedelta(days=10))
    commands = {
        "no certificate": ("a", ["--insecure"], "andshake"),
        "a says it is b": ("b", ["--certs", str(kept("b", (certs, "a"), certs))], "identity"),
    }
    for what, (name, options, logged) in commands.items():
        before = len(edge.words)
        device = there.start_device(name, FEW, *options, journal=there.folder / f"{what}.journal").command
        report.add(f"{what}: the device's status", device.finish(), "==", 2)
        report.add(f"{what}: in the edge's log", says(edge, before, logged), "==", 1)
    # Our own device would not even try with these.
    trusted = (certs / "ca.pem").read_bytes()
    knocks = {
        "wrong authority": (foreign, "a", "andshake"),
        "expired": (expired, "old", "andshake"),
        "revoked": (revoked, "gone", "revoked"),
    }
    for what, (folder, name, logged) in knocks.items():
        before = len(edge.words)
        pair = tuple((folder / f"{name}.{suffix}").read_bytes() for suffix in ("key", "pem"))
        answer = asyncio.run(knock(there.address, (trusted, *pair), name))
        report.add(f"{what}: refused", not isinstance(answer, Welcome) and answer is not None, "==", 1)
        report.add(f"{what}: in the edge's log", says(edge, before, logged), "==", 1)
    before = len(edge.words)
    for what, refused in asyncio.run(replays(there.address, certs)).items():
        report.add(f"{what}: refused", refused, "==", 1)
    report.add("replays: in the edge's log", says(edge, before, "repeated"), "==", 1)
    honest = there.start_device("b", FEW, "--certs", str(certs)).command
    report.add(
        "an honest device comes in", honest.finish() == 0 and honest.summary()["submitted"] == 3, "==", 1
    )
    report.add("edge alive", edge.alive, "==", 1)


def offramp(*arguments: str) -> None:
    """A command that must do what it is told."""
    subprocess.run([sys.executable, "-m", "offramp", *arguments], check=True, capture_output=True)


def says(edge: Command, before: int, what: str) -> bool:
    """Whether the edge has said something since, or does within two seconds."""
    deadline_s = time.monotonic() + 2.0
    while what not in edge.words[before:] and time.monotonic() < deadline_s:
        time.sleep(0.05)
    return what in edge.words[before:]


def channel(address: str, pair: tuple[bytes, ...]) -> grpc.aio.Channel:
    """A connection with an authority, a key and a certificate."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(*pair), options=options)


def hello(device: str, epoch: int = 1) -> bytes:
    """A device's first message."""
    model = load_bundle(None).model.sha256
    return encode(Hello(VERSION, device, epoch, model, 1.0, 125_000.0, 0.0, (), True))


async def knock(address: str, pair: tuple[bytes, ...], device: str) -> Any:
    """What a device with this certificate is told first."""
    async with channel(address, pair) as connection:
        return await first_word(connection.stream_stream("/offramp.Edge/Control")(), [hello(device)])


async def replays(address: str, certs: Path) -> dict[str, bool]:
    """Frames of a session that come again, from the device itself and from another one; whether each was refused."""
    pairs = {}
    for name in ("a", "b"):
        identity = certificates.load_identity(certs, name)
        pairs[name] = (identity.authority, identity.key, identity.certificate)
    announce = Announce(5, SIZE, BUDGET_S, BUDGET_S, 0, 0.0, 0.0, 1.0, 0.0, 0.0)
    found: dict[str, bool] = {}
    async with channel(address, pairs["a"]) as mine, channel(address, pairs["b"]) as other:
        control = mine.stream_stream("/offramp.Edge/Control")()
        await control.write(hello("a", epoch=7))
        welcome = decode_to_device(await asyncio.wait_for(control.read(), ANSWER_S))
        assert isinstance(welcome, Welcome)
        stolen = await first_word(
            other.stream_stream("/offramp.Edge/Tensors")(), [encode(Attach(welcome.session))]
        )
        found["another's session"] = stolen is grpc.StatusCode.INVALID_ARGUMENT
        tensors = mine.stream_stream("/offramp.Edge/Tensors")()
        await tensors.write(encode(Attach(welcome.session)))
        session = Session(control, tensors)
        await session.say(announce)
        verdict = await session.verdict()
        assert verdict is not None
        assert verdict.exit > 0
        upload = upload_for(verdict)
        await session.send(upload)
        await session.answer()
        await session.send(upload)
        again = await session.answer()
        found["an upload again"] = isinstance(again, Declined) and again.reason is Refusal.REPEATED
        await session.say(announce)
        again = await session.verdict()
        found["an announcement again"] = again is not None and again.reason is Refusal.REPEATED
        control.cancel()
        await asyncio.sleep(0.3)
        control = mine.stream_stream("/offramp.Edge/Control")()
        await control.write(hello("a", epoch=7))
        await asyncio.wait_for(control.read(), ANSWER_S)
        session = Session(control, tensors)
        await session.say(announce)
        again = await session.verdict()
        found["an announcement again in a new session"] = (
            again is not None and again.reason is Refusal.REPEATED
        )
        old = await first_word(
            mine.stream_stream("/offramp.Edge/Tensors")(), [encode(Attach(welcome.session))]
        )
        found["an old session's token"] = old is grpc.StatusCode.INVALID_ARGUMENT
    return found


def upload_for(verdict: Verdict) -> Upload:
    """What is asked for."""
    specs = load_bundle(None).model.exits[verdict.exit - 1].cuts[verdict.cut]
    tensors = wires_of({spec.name: np.zeros(spec.shape_at(SIZE), spec.dtype) for spec in specs})
    return Upload(verdict.sequence, verdict.exit, verdict.cut, SIZE, BUDGET_S, tensors)
