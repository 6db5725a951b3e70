"""An edge as a process: from its settings to its orderly end."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from offramp.errors import OfframpError
from offramp.host_profile import measured_codecs
from offramp.model.codecs import chosen_codecs, largest_payload
from offramp.options import Gain, NetworkTerms, System
from offramp.policies import Context, Policy, check_policy, make_policy
from offramp.policies.greedy import Myopic
from offramp.profile import ExitCoefficients
from offramp.runtime.configuration import LAST_PORT, MOST_BATCH, MOST_INPUTS, MOST_WORKERS
from offramp.runtime.edge_core import EdgeCore
from offramp.runtime.edge_server import EdgeServer
from offramp.runtime.edge_sessions import Limits
from offramp.runtime.forecast import Forecast
from offramp.runtime.memory import give_back, started
from offramp.runtime.processor import Processor, Tails, calibrate
from offramp.runtime.punctual import PunctualLoop
from offramp.runtime.supervision import Orders, emit
from offramp.runtime.transport import check_exposure
from offramp.runtime.wire import FRAME_OVERHEAD_BYTES, largest_frame
from offramp.scenario import Scenario, load_scenario
from offramp.worthwhile import worthwhile

if TYPE_CHECKING:
    from offramp.model.blocks import BranchyModel
    from offramp.model.bundle import Bundle
    from offramp.model.executor import ChainExecutor


@dataclass(frozen=True, slots=True)
class EdgeSettings:
    """What `offramp edge` is told. `scenario` is what the policy may know of the tasks to come, `adapt` whether it
    may come to think otherwise. `codecs`: see `exits_with`. `workers` and `max_batch`: see
    `NetworkTerms`.
    """

    host: str
    port: int
    bundle: Path | None
    policy: str
    policy_file: Path | None
    scenario: Path | None
    adapt: bool
    seed: int
    max_size: int
    codecs: str
    workers: int
    max_batch: int
    client_port: int | None
    certs: Path | None
    insecure: bool
    metrics_port: int | None
    supervised: bool


def check_max_size(max_size: int) -> None:
    """Raises OfframpError if tasks cannot be so large."""
    if not 1 <= max_size <= MOST_INPUTS:
        raise OfframpError("max-size", max_size, f"in 1..{MOST_INPUTS}", "choose another")


def check_edge(workers: int, max_batch: int) -> None:
    """Raises OfframpError if an edge cannot have so many workers, or run so many tasks together."""
    if not 1 <= workers <= MOST_WORKERS:
        raise OfframpError("workers", workers, f"in 1..{MOST_WORKERS}", "one for each core is enough")
    if not 1 <= max_batch <= MOST_BATCH:
        raise OfframpError("max-batch", max_batch, f"in 1..{MOST_BATCH}", "1 runs each task alone")


def cap_of(bundle: Bundle, max_size: int) -> int:
    """The largest frame that tasks of up to `max_size` inputs need at any cut of the model, with any codec."""
    cuts = [cut for exit in bundle.model.exits for cut in exit.cuts]
    return max(largest_frame(cuts, max_size), FRAME_OVERHEAD_BYTES + largest_payload(cuts, max_size))


def exits_with(bundle: Bundle, codecs: str) -> tuple[ExitCoefficients, ...]:
    """A bundle's coefficients with codecs: a list with commas, none for an empty one, `all` that were measured.

    With `all`, those that this host cannot use are left out. Raises OfframpError for a codec that does not exist or
    was not measured, MissingExtraError for one whose package is not installed.
    """
    chosen = chosen_codecs(codecs)
    if codecs == "all":
        measured = measured_codecs(bundle.profile())
        chosen = tuple(name for name in chosen if name in measured)
    return bundle.coefficients(chosen)


def load_executor(bundle: Bundle) -> ChainExecutor:
    """All exits of a bundle, one thread."""
    from offramp.model.executor import ChainExecutor

    return ChainExecutor(bundle.model, threads=1)


def run_edge(settings: EdgeSettings, tails: Callable[[BranchyModel], Tails] | None = None) -> None:
    """Serve until SIGINT or SIGTERM, then drain. Raises OfframpError for settings that cannot be used.

    `tails` makes what computes for the settings' number of workers; without it that is this process.
    """
    check_exposure("host", settings.host, encrypted=settings.certs is not None, insecure=settings.insecure)
    check_policy(settings.policy, settings.policy_file)
    if not 0 <= settings.port <= LAST_PORT:
        raise OfframpError("port", settings.port, f"in 0..{LAST_PORT}, 0 for a free one", "choose another")
    check_max_size(settings.max_size)
    check_edge(settings.workers, settings.max_batch)
    give_back()
    from offramp.model.bundle import load_bundle
    from offramp.model.executor import ChainExecutor
    from offramp.model.hot_tails import HotTails
    from offramp.model.pool import WeightPool

    scenario = None if settings.scenario is None else load_scenario(settings.scenario)
    bundle = load_bundle(settings.bundle)
    exits = worthwhile(exits_with(bundle, settings.codecs))
    pool = WeightPool()
    executor = ChainExecutor(bundle.model, threads=1, pool=pool)
    network = dataclasses.replace(
        scenario.network if scenario else NetworkTerms(),
        edge_workers=settings.workers,
        max_batch=settings.max_batch,
    )
    forecast = Forecast(
        exits,
        scenario.gain if scenario else Gain(),
        network,
        edge_factor=calibrate(executor, exits),
    )
    core = EdgeCore(
        forecast,
        executor.boundary,
        model_sha256=bundle.model.sha256,
        policy_name=settings.policy,
        interim=Myopic(),
        limits=Limits(max_size=settings.max_size),
    )
    hot = HotTails(executor, pool)
    processor = (
        Processor(hot, expect=hot.expect, run_uncounted=hot.run_uncounted)
        if tails is None
        else tails(bundle.model)
    )
    with asyncio.Runner(loop_factory=PunctualLoop) as runner:
        runner.run(_serve(settings, core, processor, cap_of(bundle, settings.max_size), scenario))


def policy_maker(settings: EdgeSettings, scenario: Scenario | None) -> _PolicyMaker:
    """Makes the settings' policy for whatever devices are connected."""
    return _PolicyMaker(settings.policy, settings.policy_file, scenario, settings.adapt, settings.seed)


@dataclass(frozen=True, slots=True)
class _PolicyMaker:
    name: str
    policy_file: Path | None
    scenario: Scenario | None
    adapt: bool
    seed: int

    def __call__(self, system: System, version: int) -> Policy:
        rng = np.random.default_rng([self.seed, version])
        scenario = None if self.scenario is None else _fitted(self.scenario, system)
        return make_policy(self.name, Context(system, "network", scenario, rng, self.policy_file, self.adapt))


def _fitted(scenario: Scenario, system: System) -> Scenario:
    """The scenario with the devices that are really there."""
    there = {
        "devices": system.devices,
        "device_slowdown": system.device_slowdown,
        "bandwidth_bytes_per_s": system.bandwidth_bytes_per_s,
    }
    return Scenario.model_validate(scenario.model_dump() | there)


async def _serve(
    settings: EdgeSettings, core: EdgeCore, processor: Tails, cap: int, scenario: Scenario | None
) -> None:
    stop = asyncio.Event()
    abort = asyncio.Event()

    def on_signal() -> None:
        (abort if stop.is_set() else stop).set()

    def on_orphaned() -> None:
        stop.set()
        abort.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    identity, revoked = None, None
    if settings.certs is not None:
        from offramp.runtime.certificates import EDGE, RevokedList, load_identity

        identity, revoked = load_identity(settings.certs, EDGE), RevokedList(settings.certs)
    metrics, exposed = None, None
    if settings.metrics_port is not None:
        from offramp.runtime.metrics import EdgeMetrics, MetricsServer

        metrics = EdgeMetrics(core)
        exposed = MetricsServer(metrics.registry, lambda: not core.draining)
        await exposed.start(settings.metrics_port)

    def on_policy(devices: int, notice: str | None) -> None:
        if settings.supervised:
            emit({"event": "deciding", "devices": devices, "notice": notice})

    server = EdgeServer(
        core,
        processor,
        policy_maker(settings, scenario),
        time.monotonic,
        max_frame_bytes=cap,
        workers=settings.workers,
        max_batch=settings.max_batch,
        on_policy=on_policy,
        identity=identity,
        revoked=revoked,
        metrics=metrics,
    )
    port = await server.start(settings.host, settings.port)
    orders = Orders(on_orphaned)
    try:
        client_port = None
        if settings.client_port is not None:
            client_port = await server.serve_clients(settings.client_port)
        started()
        if settings.supervised:
            await orders.start()
            emit({"event": "ready", "port": port, "client_port": client_port})
        else:
            print(
                f"edge on {settings.host}:{port}, policy {settings.policy}; Ctrl-C drains",
                file=sys.stderr,
                flush=True,
            )
        await stop.wait()
        drained = asyncio.ensure_future(server.drain())
        aborted = asyncio.ensure_future(abort.wait())
        await asyncio.wait({drained, aborted}, return_when=asyncio.FIRST_COMPLETED)
        for task in (drained, aborted):
            task.cancel()
        if settings.supervised:
            emit({"event": "done", **core.counts.to_dict()})
    finally:
        orders.stop()
        await server.stop()
        if exposed is not None:
            await exposed.stop()
