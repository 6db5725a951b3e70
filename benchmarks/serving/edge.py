"""Starting the servers of one exit of the bundled network, and the inputs that they are sent."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx.utils import Extractor

from offramp.model.bundle import load_bundle
from serving.clients import Client, HttpClient, OfframpClient
from serving.network import Network

HERE = Path(__file__).parent
START_S = 90.0
BATCHES = 16
"""Different inputs that a run goes through."""


@dataclass(frozen=True)
class Served:
    """An exit as a model of its own, and as a bundle for the edge."""

    exit: int
    model: Path
    bundle: Path
    sha256: str


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def extract(exit: int, folder: Path) -> Served:
    """Write one exit of the bundled network, and a bundle of it with a quick profile."""
    whole = load_bundle(None)
    proto = onnx.load(whole.model.graph.source.path)
    names = [spec.name for spec in whole.model.inputs]
    model, bundle = folder / f"exit{exit}.onnx", folder / f"bundle{exit}"
    onnx.save(Extractor(proto).extract_model(names, [whole.model.exit(exit).output]), model)
    command = [sys.executable, "-m", "offramp", "bundle", str(model), "-o", str(bundle)]
    subprocess.run([*command, "--accuracies", "0.9", "--limit-s", "5"], check=True, stdout=subprocess.DEVNULL)
    return Served(exit, model, bundle, load_bundle(bundle).model.sha256)


def inputs(size: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (size, 32, 32, 3), dtype=np.uint8) for _ in range(BATCHES)]


def processor_s(pid: int) -> float:
    """Processor time that a process and all that it has started have taken, seconds; Linux."""
    parents, taken_s = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        number = int(path.parent.name)
        parents[number] = int(fields[1])
        taken_s[number] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    family, grown = {pid}, True
    while grown:
        young = {child for child, parent in parents.items() if parent in family} - family
        family, grown = family | young, bool(young)
    return sum(taken_s.get(member, 0.0) for member in family)


@dataclass(frozen=True)
class Running:
    """A server that answers: its port and its process."""

    port: int
    pid: int


@contextmanager
def running(name: str, served: Served, options: Sequence[str] = ()) -> Iterator[Running]:
    """A server as a process group of its own, from its first answer. `options` are for the edge."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if name == "offramp":
        arguments = [
            "-m",
            "offramp",
            "edge",
            "--port",
            "0",
            "--client-port",
            str(port),
            "--bundle",
            str(served.bundle),
        ]
        arguments += ["--policy", "edge-only", *options]
    else:
        arguments = [str(HERE / f"{name}_server.py"), str(served.model), str(port)]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=said,
            stderr=said,
            start_new_session=True,
            env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
        )
        try:
            asyncio.run(answers(name, served, port, process))
            yield Running(port, process.pid)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


async def answers(name: str, served: Served, port: int, process: subprocess.Popen) -> None:
    """Wait until the server gives the network's own answer."""
    batch = inputs(1)[0]
    expected = Network(str(served.model)).run(batch)
    until_s = time.monotonic() + START_S
    while True:
        client = clients_of(name, served, port, 1)[0]
        try:
            await client.open()
            found = np.frombuffer(await client.ask(batch), np.float32).reshape(expected.shape)
        except (OSError, RuntimeError, asyncio.IncompleteReadError) as error:
            if time.monotonic() > until_s or process.poll() is not None:
                raise RuntimeError(f"{name} does not answer: {error}") from None
            await asyncio.sleep(0.3)
            continue
        await client.close()
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
        return


def clients_of(name: str, served: Served, port: int, count: int) -> list[Client]:
    if name != "offramp":
        return [HttpClient(port) for _ in range(count)]
    spec = load_bundle(served.bundle).model.inputs[0]
    return [OfframpClient(port, number, served.sha256, spec) for number in range(count)]
