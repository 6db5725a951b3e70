"""The shipped commands as processes: started, watched through `/proc` and their metrics, and ended."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

PATIENCE_S = 60.0
POLL_S = 0.05
Metrics = dict[str, float]
_Value = TypeVar("_Value")
_CLONE_NEWNET = 0x40000000
_SAMPLE = re.compile(r"^([a-z_]+(?:\{[^}]*\})?) (\S+)$", re.MULTILINE)


class PlantError(Exception):
    """A process did not do what a scenario needs, so that the scenario says nothing."""


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def inside(namespace: str | None, call: Callable[[], _Value]) -> _Value:
    """Call something in a network namespace; what it opens stays there."""
    if namespace is None:
        return call()
    made: list[_Value] = []
    failed: list[BaseException] = []

    def enter() -> None:
        # A namespace is a thread's, so this one is thrown away afterwards.
        try:
            descriptor = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
            try:
                if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
            finally:
                os.close(descriptor)
            made.append(call())
        except BaseException as error:  # noqa: BLE001 - raised again where it belongs
            failed.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]


class Command:
    """An `offramp` command, or another program of Python's. Its words go to files: nobody has to read them."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        folder: Path,
        namespace: str | None = None,
        program: Sequence[str] = ("-m", "offramp"),
    ) -> None:
        self.name, self.namespace = name, namespace
        self.arguments = tuple(arguments)
        self.killed = False
        self.began_s = time.monotonic()
        stem = f"{name}-{time.monotonic_ns()}"
        self._out, self._err = folder / f"{stem}.out", folder / f"{stem}.err"
        environment = {key: value for key, value in os.environ.items() if key != "OFFRAMP_DATA"}
        prefix = [] if namespace is None else ["ip", "netns", "exec", namespace]
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, *program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    @property
    def words(self) -> str:
        """Standard error so far."""
        return self._err.read_text(errors="replace")

    @property
    def metrics_port(self) -> int | None:
        """The port of `--metrics-port`."""
        given = self.arguments
        return int(given[given.index("--metrics-port") + 1]) if "--metrics-port" in given else None

    def metrics(self) -> Metrics | None:
        """Every sample of `/metrics`; None if it does not answer."""
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"

        def read() -> str:
            with urllib.request.urlopen(url, timeout=0.5) as answer:
                return str(answer.read().decode())

        try:
            text = inside(self.namespace, read)
        except (OSError, ValueError):
            return None
        return {name: float(value) for name, value in _SAMPLE.findall(text)}

    def wait_for(self, said: str, patience_s: float = PATIENCE_S) -> float:
        """Wait until it says something on standard error; the instant. Raises PlantError."""
        until(lambda: said in self.words or not self.alive, patience_s, f"{self.name} to say {said!r}")
        if said not in self.words:
            raise PlantError(f"{self.name} ended with {self.process.returncode}: {self.words[-500:]}")
        return time.monotonic()

    def signal(self, number: signal.Signals) -> float:
        """Send a signal; the instant."""
        self.killed |= number is signal.SIGKILL
        os.kill(self.pid, number)
        return time.monotonic()

    def finish(self, patience_s: float = PATIENCE_S) -> int:
        """Wait for its end; its status. Raises PlantError if it does not come."""
        try:
            return self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            raise PlantError(f"{self.name} does not end: {self.words[-500:]}") from None

    def summary(self) -> dict[str, Any]:
        """The JSON object that it ended with."""
        lines = self._out.read_text().strip().splitlines()
        if not lines:
            raise PlantError(f"{self.name} ended without a summary: {self.words[-500:]}")
        found: dict[str, Any] = json.loads(lines[-1])
        return found

    def resources(self) -> dict[str, int]:
        """Resident memory, private part of it, threads and open descriptors. Raises OSError once it is gone."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = dict(re.findall(r"^(VmRSS|VmHWM|RssAnon|Threads):\s+(\d+)", status, re.MULTILINE))
        return {
            "rss_kb": int(found["VmRSS"]),
            "anonymous_kb": int(found["RssAnon"]),
            "peak_kb": int(found["VmHWM"]),
            "threads": int(found["Threads"]),
            "descriptors": len(list(Path(f"/proc/{self.pid}/fd").iterdir())),
        }

    def end(self) -> None:
        """Whatever it is doing: no more of it."""
        if self.alive:
            for number in (signal.SIGCONT, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, number)
        self.process.wait()


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


def end_in_order() -> None:
    """Let SIGTERM end this process as Ctrl-C does: with all that it has started."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


def until(condition: Callable[[], bool], patience_s: float, what: str) -> float:
    """Wait for a condition; the instant at which it held. Raises PlantError."""
    deadline_s = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise PlantError(f"waited {patience_s:g} s in vain for {what}")
        time.sleep(POLL_S / 2)
    return time.monotonic()


@contextlib.contextmanager
def ending() -> Iterator[list[Command]]:
    """A list of commands, each of which is ended at the end."""
    commands: list[Command] = []
    try:
        yield commands
    finally:
        for command in commands:
            command.end()
