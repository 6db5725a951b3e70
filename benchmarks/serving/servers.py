"""Starting the servers of one ONNX network, all alike: one process group, up from its first right answer."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from plant.processes import Command, ending, free_port

from offramp.model.bundle import load_bundle
from serving.clients import Client, HttpClient, OfframpClient
from serving.exits import Served, inputs
from serving.network import Network

HERE = Path(__file__).parent
START_S = 90.0
END_S = 20.0
PEERS = ("litserve", "ray")
"""`NAME_server.py` beside this module."""


@dataclass(frozen=True)
class Running:
    """A server that answers: its port and its process."""

    port: int
    pid: int


@contextmanager
def running(name: str, served: Served, workers: int = 1, max_batch: int = 1) -> Iterator[Running]:
    """A server that puts up to `max_batch` tasks together. Only the edge (`offramp`) takes more than one worker.

    Raises RuntimeError if it does not answer.
    """
    port = free_port()
    if name == "offramp":
        program = ["-m", "offramp", "edge", "--port", "0", "--client-port", str(port)]
        program += [] if served.bundle is None else ["--bundle", str(served.bundle)]
        program += ["--policy", "edge-only", "--workers", str(workers), "--max-batch", str(max_batch)]
    else:
        program = [str(HERE / f"{name}_server.py"), str(served.model), str(port), str(max_batch)]
    with tempfile.TemporaryDirectory() as folder, ending() as commands:
        command = Command(name, program, Path(folder), program=())
        commands.append(command)
        try:
            asyncio.run(_answers(name, served, port, command))
            yield Running(port, command.pid)
        finally:
            # Ray has processes outside this group, which it ends itself when it is asked to.
            with suppress(ProcessLookupError):
                os.killpg(command.pid, signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                command.process.wait(END_S)


def clients_of(name: str, served: Served, port: int, count: int) -> list[Client]:
    """Connections to a server, not yet open."""
    if name != "offramp":
        return [HttpClient(port) for _ in range(count)]
    spec = load_bundle(served.bundle).model.inputs[0]
    return [OfframpClient(port, number, served.sha256, spec) for number in range(count)]


async def _answers(name: str, served: Served, port: int, command: Command) -> None:
    """Wait until the server gives the answer of one of the network's exits."""
    batch = inputs(1)[0]
    expected = Network(str(served.model)).all_exits(batch)
    until_s = time.monotonic() + START_S
    while True:
        client = clients_of(name, served, port, 1)[0]
        try:
            await client.open()
            found = np.frombuffer(await client.ask(batch), np.float32).reshape(expected[0].shape)
        except (OSError, RuntimeError, asyncio.IncompleteReadError) as error:
            if time.monotonic() > until_s or not command.alive:
                raise RuntimeError(f"{name} does not answer: {error}; {command.words[-500:]}") from None
            await asyncio.sleep(0.3)
            continue
        await client.close()
        if not any(np.allclose(found, logits, rtol=1e-3, atol=1e-4) for logits in expected):
            raise RuntimeError(f"{name} gives another answer than the network")
        return
