"""An edge and its devices at work, watched all the time, and what is left of them at the end."""

from __future__ import annotations

import contextlib
import math
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from offramp.scenario import Scenario
from plant.books import ENDS, Journal, Row, complaints, read_journal
from plant.processes import POLL_S, Command, Metrics, PlantError, ending, free_port, until

ENDLESS = 1_000_000
"""Tasks of a device that plays until it is told to stop."""
TRUSTED = "offramp_device_edge_trusted"
STARTED = "Ctrl-C drains"
MEMORY_BACK = 1.10
"""How far a process's memory after a fault may exceed what it was before it."""


@dataclass(frozen=True, slots=True)
class Load:
    """What each device is given: its stream, how slow it is, and its link."""

    p: float = 0.1
    k: float = 6.0
    slot_s: float | None = None
    slowdown: float = 25.0
    rate: str = "1000kbit"
    seed: int = 0
    tasks: int = ENDLESS

    @property
    def scenario(self) -> Scenario:
        """The stream's scenario, as the command makes it."""
        return Scenario().changed(tasks=self.tasks, devices=1, p=self.p, k=self.k, slot_s=self.slot_s)

    def arguments(self) -> list[str]:
        """As options of `offramp device`."""
        given = ["--tasks", str(self.tasks), "--p", str(self.p), "--k", str(self.k), "--seed", str(self.seed)]
        slot = [] if self.slot_s is None else ["--slot-s", str(self.slot_s)]
        return [*given, *slot, "--slowdown", str(self.slowdown), "--rate", self.rate]


@dataclass(slots=True)
class Unit:
    """One device: its command, its load, its journal, and when its stream began."""

    command: Command
    load: Load
    journal: Path
    start_s: float = 0.0
    seen: list[tuple[float, Metrics]] = field(default_factory=list)
    rss_before_kb: int = 0

    def rows(self) -> tuple[Row, ...]:
        """Its tasks, once it has ended."""
        return self.books().rows

    def books(self) -> Journal:
        """Its journal, once it has ended."""
        return read_journal(self.journal, self.load.scenario, self.load.seed)

    def between(self, from_s: float, to_s: float) -> list[Row]:
        """Tasks that arrived in an interval of the monotonic clock, each with time to end before it is over."""
        return [
            row
            for row in self.rows()
            if from_s <= self.start_s + row.arrival_s and self.start_s + row.arrival_s + row.budget_s <= to_s
        ]

    def first(self, name: str, value: float, after_s: float) -> float | None:
        """When a metric was first seen at a value after an instant."""
        return next((at_s for at_s, seen in self.seen if at_s >= after_s and seen.get(name) == value), None)


class Site:
    """Starts what it is asked for; `watch` runs beside it and reads metrics all the time."""

    def __init__(self, folder: Path, commands: list[Command]) -> None:
        self.folder = folder
        self.edge_arguments: list[str] = []
        self.units: list[Unit] = []
        self.complaints: list[str] = []
        self._commands = commands
        self.edge: Command
        self.edge_seen: list[tuple[float, Metrics]] = []
        self._stop = threading.Event()
        self._watching = False
        # An edge that hangs does not answer: whoever waits for it must not be the one who asks the devices.
        self._watchers = [
            threading.Thread(target=watch, daemon=True) for watch in (self._watch, self._watch_edge)
        ]

    def start_edge(
        self,
        *more: str,
        host: str = "127.0.0.1",
        port: int | None = None,
        namespace: str | None = None,
        policy: str = "planner",
    ) -> Command:
        """Start an edge and wait until it listens."""
        at = ["--host", host, "--port", str(port or free_port()), "--metrics-port", str(free_port())]
        self.edge = Command("edge", ["edge", *at, "--policy", policy, *more], self.folder, namespace)
        self._commands.append(self.edge)
        self.edge.wait_for(STARTED)
        return self.edge

    @property
    def address(self) -> str:
        """Where the edge is."""
        given = self.edge.arguments
        return f"{given[given.index('--host') + 1]}:{given[given.index('--port') + 1]}"

    def start_edge_again(self) -> float:
        """Start the same edge once more; the instant at which it listens."""
        again = Command("edge", self.edge.arguments, self.folder, self.edge.namespace)
        self.edge, self.edge_seen = again, []  # its counters begin anew
        self._commands.append(self.edge)
        return self.edge.wait_for(STARTED)

    def start_device(
        self,
        name: str,
        load: Load,
        *more: str,
        journal: Path | None = None,
        namespace: str | None = None,
        edge: str | None = None,
    ) -> Unit:
        """Start a device; `started` says when it plays."""
        journal = journal or self.folder / f"{name}.journal"
        at = ["--edge", edge or self.address, "--id", name, "--journal", str(journal), "--json"]
        given = ["device", *at, *load.arguments(), "--metrics-port", str(free_port()), *more]
        unit = Unit(Command(name, given, self.folder, namespace), load, journal)
        self._commands.append(unit.command)
        self.units.append(unit)
        return unit

    def started(self, *, watched: bool = True) -> None:
        """Wait until every device plays, and begin to watch."""
        for unit in self.units:
            unit.start_s = unit.start_s or unit.command.wait_for(STARTED)
        if watched and not self._watching:
            self._watching = True
            for watcher in self._watchers:
                watcher.start()

    def _watch(self) -> None:
        while not self._stop.wait(POLL_S):
            for unit in self.units:
                if not unit.command.alive:
                    continue
                asked_s = time.monotonic()
                seen = unit.command.metrics()
                if seen is None:
                    continue
                unit.seen.append((asked_s, seen))
                ended = sum(seen[f'offramp_device_ended_total{{end="{end}"}}'] for end in ENDS)
                if seen["offramp_device_submitted_total"] != ended + seen["offramp_device_in_flight"]:
                    self.complaints.append(f"{unit.command.name}: submitted is not ended + in flight")

    def _watch_edge(self) -> None:
        while not self._stop.wait(POLL_S):
            edge, asked_s = self.edge, time.monotonic()
            if edge.alive and (seen := edge.metrics()) is not None and edge is self.edge:
                self.edge_seen.append((asked_s, seen))

    def answered_after(self, instant_s: float) -> float:
        """When the edge was first seen to have answered more tasks than it had until then; infinity if it has not."""
        name = "offramp_edge_answered_total"
        before = max((seen[name] for at_s, seen in self.edge_seen if at_s < instant_s), default=0.0)
        later = (at_s for at_s, seen in self.edge_seen if at_s >= instant_s and seen[name] > before)
        return next(later, math.inf)

    def remember_memory(self) -> None:
        """What the processes take now is what they are to come back to."""
        for unit in self.units:
            unit.rss_before_kb = unit.command.resources()["rss_kb"]

    def memory_ratios(self) -> dict[str, float]:
        """Memory of each device that runs, over what it was."""
        return {
            unit.command.name: unit.command.resources()["rss_kb"] / unit.rss_before_kb
            for unit in self.units
            if unit.command.alive and unit.rss_before_kb
        }

    def run_for(self, seconds: float) -> float:
        """Let it work; the instant at the end."""
        time.sleep(seconds)
        return time.monotonic()

    def stop_devices(self) -> dict[str, dict[str, Any]]:
        """Tell every device that runs to stop, and hold its books against each other; their summaries."""
        running = [unit for unit in self.units if unit.command.alive]
        for unit in running:
            unit.command.signal(signal.SIGTERM)
        summaries = {}
        for unit in running:
            name = unit.command.name
            if (status := unit.command.finish()) != 0:
                self.complaints.append(f"{name} ended with {status}: {unit.command.words[-300:]}")
                continue
            summaries[name] = unit.command.summary()
            self.complaints += [f"{name}: {what}" for what in complaints(summaries[name], unit.books())]
        return summaries

    def still(self) -> None:
        """Watch no more."""
        self._stop.set()
        if self._watching:
            for watcher in self._watchers:
                watcher.join()

    def close(self) -> None:
        """Watch no more, and see who died without being killed."""
        self.still()
        if not self.edge.alive and not self.edge.killed and self.edge.process.returncode != 0:
            self.complaints.append(
                f"the edge ended with {self.edge.process.returncode}: {self.edge.words[-300:]}"
            )


@contextlib.contextmanager
def site() -> Iterator[Site]:
    """A site in a folder of its own, of which nothing is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="offramp-plant-") as folder, ending() as commands:
        made = Site(Path(folder), commands)
        try:
            yield made
        finally:
            made.still()


def certify(folder: Path, devices: Sequence[str], hosts: Sequence[str]) -> Path:
    """A new authority with certificates for an edge at these hosts and for devices, by `offramp certs`."""
    certs = folder / "certs"

    def offramp(*arguments: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "offramp", "certs", *arguments], check=True, capture_output=True
        )

    offramp("init", str(certs))
    offramp("issue", str(certs), "edge", *(part for host in hosts for part in ("--host", host)))
    for name in devices:
        offramp("issue", str(certs), name)
    return certs


def latest(units: Sequence[Unit], when: Callable[[Unit], float | None], what: str) -> float:
    """The last of the instants of several devices. Raises PlantError if it came for one of them never."""
    instants = [when(unit) for unit in units]
    if any(instant is None for instant in instants):
        raise PlantError(f"{what} never came")
    return max(instant for instant in instants if instant is not None)


__all__ = ["STARTED", "Load", "Site", "Unit", "certify", "latest", "site", "until"]
