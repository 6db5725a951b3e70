"""`offramp edge` and `device`."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from offramp.cli.arguments import check_engine, errors, print_json, progress_bar, scenario_from
from offramp.cli.config import from_file
from offramp.cli.options import (
    Adapt,
    Address,
    Confidence,
    Data,
    EdgeCodecs,
    EngineName,
    JsonFlag,
    PolicyFile,
    PolicyName,
    RuntimeBundle,
    Seed,
    SlotLength,
)
from offramp.cli.report import counts_table
from offramp.runtime import report_handshakes
from offramp.runtime.configuration import DeviceConfig, EdgeConfig
from offramp.runtime.logs import start_logging

Insecure = Annotated[bool, typer.Option("--insecure", help="Plain text also off loopback.")]
Certs = Annotated[
    Path | None, typer.Option("--certs", help="Folder with ca.pem and this side's pair: mutual TLS.")
]
MetricsPort = Annotated[
    int | None, typer.Option("--metrics-port", help="Serve /metrics, /livez and /readyz on loopback.")
]
LogFormat = Annotated[str, typer.Option("--log-format", help="text or json, on standard error.")]
MaxSize = Annotated[int, typer.Option("--max-size", help="Most inputs in one task.")]
Workers = Annotated[
    int, typer.Option("--workers", help="Tasks that the edge computes at the same time, one core each.")
]
EdgeBatch = Annotated[
    int,
    typer.Option("--max-batch", help="Waiting tasks of one exit and cut that a worker may run together."),
]
ClientPort = Annotated[
    int | None,
    typer.Option("--client-port", help="Serve programs on loopback that have inputs and compute nothing."),
]
_CONFIG_HELP = "TOML file with the settings of edge and devices; other options win over it."
EdgeFile = Annotated[
    Path | None, typer.Option("--config", is_eager=True, callback=from_file("edge"), help=_CONFIG_HELP)
]
DeviceFile = Annotated[
    Path | None, typer.Option("--config", is_eager=True, callback=from_file("device"), help=_CONFIG_HELP)
]
Supervised = Annotated[bool, typer.Option("--supervised", hidden=True)]
_EDGE, _DEVICE = EdgeConfig(), DeviceConfig()
"""The options' defaults are those of the file."""


def edge(
    config: EdgeFile = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = _EDGE.host,
    port: Annotated[int, typer.Option("--port", help="Port; 0 takes a free one.")] = _EDGE.port,
    bundle: RuntimeBundle = _EDGE.bundle,
    policy: PolicyName = _EDGE.policy,
    policy_file: PolicyFile = _EDGE.policy_file,
    scenario: Annotated[
        Path | None, typer.Option("--scenario", help="What the policy may know of the tasks to come.")
    ] = _EDGE.scenario,
    adapt: Adapt = _EDGE.adapt,
    seed: Seed = _EDGE.seed,
    max_size: MaxSize = _EDGE.max_size,
    codecs: EdgeCodecs = _EDGE.codecs,
    workers: Workers = _EDGE.workers,
    max_batch: EdgeBatch = _EDGE.max_batch,
    client_port: ClientPort = _EDGE.client_port,
    engine: EngineName = _EDGE.engine,
    address: Address = _EDGE.address,
    certs: Certs = _EDGE.certs,
    insecure: Insecure = _EDGE.insecure,
    metrics_port: MetricsPort = _EDGE.metrics_port,
    log_format: LogFormat = _EDGE.log_format,
    supervised: Supervised = False,
) -> None:
    """Serve devices: decide each of their tasks, and compute what they send."""
    start_logging(log_format)
    if certs is not None:
        report_handshakes()
    from offramp.runtime.edge_main import EdgeSettings, run_edge

    check_engine(engine, address)
    settings = EdgeSettings(
        host,
        port,
        bundle,
        policy_or_default(policy),
        policy_file,
        scenario,
        adapt,
        seed,
        max_size,
        codecs,
        workers,
        max_batch,
        client_port,
        certs,
        insecure,
        metrics_port,
        supervised,
    )
    if engine == "local":
        run_edge(settings)
        return
    from offramp.cluster import cluster
    from offramp.remote_tails import RemoteTails

    with cluster(address) as ray:
        run_edge(settings, partial(RemoteTails, ray, workers=workers))


def device(
    edge: Annotated[str, typer.Option("--edge", help="The edge, HOST:PORT.")],
    id: Annotated[str, typer.Option("--id", help="Name of this device, one of a kind on its edge.")],
    config: DeviceFile = None,
    tasks: Annotated[int, typer.Option("--tasks", help="Tasks to play.")] = _DEVICE.tasks,
    p: Annotated[
        float, typer.Option("--p", help="Probability that a slot brings this device a task.")
    ] = _DEVICE.p,
    k: Annotated[float, typer.Option("--k", help="Slots of budget for each input, > 0.")] = _DEVICE.k,
    slot_s: SlotLength = _DEVICE.slot_s,
    seed: Seed = _DEVICE.seed,
    data: Data = _DEVICE.data,
    bundle: RuntimeBundle = _DEVICE.bundle,
    slowdown: Annotated[
        float, typer.Option("--slowdown", help="Stand for a device so many times slower than this machine.")
    ] = _DEVICE.slowdown,
    rate: Annotated[str, typer.Option("--rate", help="Uplink's rate.")] = _DEVICE.rate,
    delay: Annotated[str, typer.Option("--delay", help="Uplink's one-way delay.")] = _DEVICE.delay,
    link_trace: Annotated[
        Path | None, typer.Option("--link-trace", help="Recorded uplink (Mahimahi) in place of the rate.")
    ] = _DEVICE.link_trace,
    journal: Annotated[
        Path | None, typer.Option("--journal", help="File that keeps every task and its end across crashes.")
    ] = _DEVICE.journal,
    confidence: Confidence = _DEVICE.confidence,
    max_size: MaxSize = _DEVICE.max_size,
    codecs: Annotated[
        str, typer.Option("--codecs", help="Codecs that the edge may name; empty for none.")
    ] = _DEVICE.codecs,
    tasks_file: Annotated[Path | None, typer.Option("--tasks-file", hidden=True)] = None,
    certs: Certs = _DEVICE.certs,
    insecure: Insecure = _DEVICE.insecure,
    metrics_port: MetricsPort = _DEVICE.metrics_port,
    log_format: LogFormat = _DEVICE.log_format,
    supervised: Supervised = False,
    json_: JsonFlag = _DEVICE.json_,
) -> None:
    """Play a stream of tasks through an edge; ends with what became of them."""
    start_logging(log_format)
    import numpy as np

    from offramp.runtime.device_main import DeviceSettings, run_device
    from offramp.runtime.samples import samples_for

    settings = DeviceSettings(
        edge,
        id,
        bundle,
        scenario_from(None, tasks=tasks, devices=1, p=p, k=k, slot_s=slot_s),
        seed,
        tasks_file,
        slowdown,
        rate,
        delay,
        link_trace,
        journal,
        confidence,
        max_size,
        codecs,
        certs,
        insecure,
        metrics_port,
        supervised,
    )
    with progress_bar(json_ or supervised) as progress:
        bar = progress.add_task(f"device {id}", total=tasks)
        summary = run_device(
            settings,
            lambda loaded: samples_for(loaded, data, np.random.default_rng(seed)),
            lambda record: progress.advance(bar),
        )
    if json_:
        print_json(summary)
    elif not supervised:
        Console().print(counts_table(summary, f"device {id}"))


def policy_or_default(name: str | None) -> str:
    """The policy that was named, or what an edge decides by unless told otherwise."""
    if name is not None:
        return name
    if find_spec("numba") is not None:
        return "planner"
    errors.print(
        "Deciding by myopic: planner needs numba. Install it with pip install 'offramp[research]'.",
        soft_wrap=True,
    )
    return "myopic"
