"""A device as a process: from its settings to its summary."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offramp.errors import OfframpError
from offramp.host_profile import check_confidence, residual_excess
from offramp.link import Link, TraceLink, make_link
from offramp.runtime.device_agent import DeviceAgent, Identity
from offramp.runtime.device_connection import Endpoint
from offramp.runtime.edge_main import cap_of, check_max_size, exits_with, load_executor
from offramp.runtime.journal import Journal, with_journal
from offramp.runtime.margin import Margin
from offramp.runtime.memory import give_back, started
from offramp.runtime.outcomes import TaskRecord
from offramp.runtime.own import OwnSystem
from offramp.runtime.processor import Processor, calibrate
from offramp.runtime.protocol import check_name
from offramp.runtime.punctual import PunctualLoop
from offramp.runtime.summary import Tally
from offramp.runtime.supervision import Orders, emit
from offramp.runtime.transport import check_exposure, split_address
from offramp.runtime.workload import PlannedTask, Samples, kinds_of, load_share, own_stream
from offramp.scenario import Scenario

if TYPE_CHECKING:
    from offramp.model.bundle import Bundle

FROM_SUPERVISOR = "supervisor"
"""In place of an edge's address: the supervisor gives it as an order."""


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """What `offramp device` is told. `share` replaces the stream that `scenario` and `seed` describe.

    `codecs` are what the edge may decide with: see `edge_main.exits_with`.
    """

    edge: str
    device: str
    bundle: Path | None
    scenario: Scenario
    seed: int
    share: Path | None
    slowdown: float
    rate: str
    delay: str
    link_trace: Path | None
    journal: Path | None
    confidence: float | None
    max_size: int
    codecs: str
    certs: Path | None
    insecure: bool
    metrics_port: int | None
    supervised: bool


LoadSamples = Callable[["Bundle"], Samples]


def run_device(
    settings: DeviceSettings, load_samples: LoadSamples, on_end: Callable[[TaskRecord], None]
) -> dict[str, Any]:
    """Play the stream against the edge; the summary. Raises OfframpError for settings that cannot be used."""
    if not settings.slowdown >= 1.0:
        raise OfframpError(
            "slowdown", settings.slowdown, "must be >= 1", "a device cannot be faster than its machine"
        )
    give_back()
    check_name(settings.device)
    check_max_size(settings.max_size)
    if settings.confidence is not None:
        check_confidence(settings.confidence)
    if settings.edge != FROM_SUPERVISOR:
        host, _ = split_address("edge", settings.edge)
        check_exposure("edge", host, encrypted=settings.certs is not None, insecure=settings.insecure)
    credentials = None
    if settings.certs is not None:
        from offramp.runtime.certificates import load_identity

        credentials = load_identity(settings.certs, settings.device)
    link = make_link(settings.rate, settings.delay, settings.link_trace, time.monotonic())
    from offramp.model.bundle import load_bundle

    bundle = load_bundle(settings.bundle)
    exits = exits_with(bundle, settings.codecs)
    if settings.share is not None:
        share, samples = load_share(settings.share)
        stream = partial(iter, share)
    else:
        samples = load_samples(bundle)
        stream = partial(own_stream, settings.scenario, len(samples), settings.seed)
    executor = load_executor(bundle)
    drifts: list[float] = []
    margin = Margin()
    if settings.confidence is not None:
        margin = Margin(settings.confidence, residual_excess(bundle.profile(), settings.confidence))
    tally = Tally([exit.accuracy for exit in exits])
    told: list[Callable[[TaskRecord], None]] = [tally.add]

    def ended(record: TaskRecord) -> None:
        for tell in told:
            tell(record)
        if settings.supervised:
            emit({"event": "task", "record": record.to_dict()})
        else:
            on_end(record)

    journal = None if settings.journal is None else Journal.open(settings.journal, settings.device)
    identity = Identity(
        settings.device,
        # Without a journal nothing counts the starts; the time is as good while the clock goes forward.
        time.time_ns() // 1_000_000 if journal is None else journal.epoch,
        bundle.model.sha256,
        kinds_of(stream()),
    )

    async def main() -> None:
        stop, abort = asyncio.Event(), asyncio.Event()

        def on_orphaned() -> None:
            stop.set()
            abort.set()

        orders = Orders(on_orphaned)
        if settings.supervised:
            await orders.start()
            emit({"event": "loaded"})
        address = settings.edge
        if address == FROM_SUPERVISOR:
            address = str((await orders.next())["edge"])
        slowdown = settings.slowdown * calibrate(executor, exits)
        own = OwnSystem(exits, slowdown, link.bandwidth_bytes_per_s, link.delay_s)
        agent = DeviceAgent(
            identity,
            Endpoint(address, cap_of(bundle, settings.max_size), credentials),
            executor,
            Processor(executor, settings.slowdown),
            own,
            link,
            samples,
            time.monotonic,
            ended,
            journal,
            margin,
        )
        exposed = None
        if settings.metrics_port is not None:
            from offramp.runtime.metrics import DeviceMetrics, MetricsServer

            metrics = DeviceMetrics(agent.core, own)
            told.append(metrics.ended)
            exposed = MetricsServer(metrics.registry, lambda: not stop.is_set())
            await exposed.start(settings.metrics_port)
        try:
            await agent.connect()
            await _play(settings, agent, stream(), orders, (stop, abort), own.slowdown, link)
        finally:
            await agent.close()
            drifts.append(own.speed.drift)
            if exposed is not None:
                await exposed.stop()
            orders.stop()
        if agent.failure is not None:
            raise OfframpError(
                "journal",
                str(settings.journal),
                f"cannot be written ({agent.failure}); the device has stopped",
                "make room and start it again",
            )

    try:
        with asyncio.Runner(loop_factory=PunctualLoop) as runner:
            runner.run(main())
        summary = with_journal(tally.summary(), journal)
        summary["profile_drift"] = drifts[-1] if drifts else None
    finally:
        if journal is not None:
            journal.close()
    if settings.supervised:
        emit({"event": "done", "summary": summary})
    return summary


async def _play(
    settings: DeviceSettings,
    agent: DeviceAgent,
    plan: Iterable[PlannedTask],
    orders: Orders,
    stop_and_abort: tuple[asyncio.Event, asyncio.Event],
    slowdown: float,
    link: Link,
) -> None:
    loop = asyncio.get_running_loop()
    stop, abort = stop_and_abort

    def on_signal() -> None:
        (abort if stop.is_set() else stop).set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    started()
    start_s = time.monotonic()
    if settings.supervised:
        emit({"event": "ready", "device": settings.device, "slowdown": slowdown})
        order = await orders.next()
        start_s = float(order["start_s"])
        if isinstance(link, TraceLink):
            # Nothing has crossed yet: the recording may begin where it is to be at the stream's start.
            link.origin_s = float(order.get("link_origin_s", link.origin_s))
    else:
        print(f"device {settings.device} on edge {settings.edge}; Ctrl-C drains", file=sys.stderr)
    playing = asyncio.ensure_future(agent.play(plan, start_s))
    stopped = asyncio.ensure_future(stop.wait())
    aborted = asyncio.ensure_future(abort.wait())
    await asyncio.wait({playing, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if not playing.done():
        agent.stop()
        await asyncio.wait({playing, aborted}, return_when=asyncio.FIRST_COMPLETED)
    for task in (stopped, aborted):
        task.cancel()
    if playing.done():
        playing.result()
    else:
        playing.cancel()
