"""`offramp edge`, `device` and `demo`."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console
from rich.table import Table

from offramp.cli.arguments import (
    Adapt,
    ArrivalProbability,
    Assume,
    BudgetFactor,
    Devices,
    JsonFlag,
    ScenarioFile,
    Seed,
    SlotLength,
    errors,
    print_json,
    progress_bar,
    scenario_from,
)
from offramp.cli.config import from_file
from offramp.errors import MissingExtraError, OfframpError
from offramp.policies import POLICIES
from offramp.runtime import report_handshakes
from offramp.runtime.configuration import DeviceConfig, EdgeConfig
from offramp.runtime.logs import start_logging
from offramp.runtime.outcomes import End
from offramp.task import UNCODED

if TYPE_CHECKING:
    from offramp.runtime.demo import DemoRun
    from offramp.runtime.outcomes import TaskRecord

RuntimeBundle = Annotated[
    Path | None, typer.Option("--bundle", help="Model bundle; without it the one that is shipped.")
]
Data = Annotated[
    Path | None, typer.Option("--data", help="Folder of the data set; else OFFRAMP_DATA, the hub.")
]
PolicyName = Annotated[
    str | None,
    typer.Option(
        "--policy",
        help=f"One of {', '.join(POLICIES)}; without it planner, or myopic where the research extra is missing.",
    ),
]
PolicyFile = Annotated[Path | None, typer.Option("--policy-file", help="A trained policy's file.")]
Insecure = Annotated[bool, typer.Option("--insecure", help="Plain text also off loopback.")]
Certs = Annotated[
    Path | None, typer.Option("--certs", help="Folder with ca.pem and this side's pair: mutual TLS.")
]
MetricsPort = Annotated[
    int | None, typer.Option("--metrics-port", help="Serve /metrics, /livez and /readyz on loopback.")
]
LogFormat = Annotated[str, typer.Option("--log-format", help="text or json, on standard error.")]
MaxSize = Annotated[int, typer.Option("--max-size", help="Most inputs in one task.")]
EdgeCodecs = Annotated[
    str,
    typer.Option(
        "--codecs",
        help="Codecs that decisions may name, with commas, or all; without it tensors cross as they are.",
    ),
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

    run_edge(
        EdgeSettings(
            host,
            port,
            bundle,
            _policy_or_default(policy),
            policy_file,
            scenario,
            adapt,
            seed,
            max_size,
            codecs,
            certs,
            insecure,
            metrics_port,
            supervised,
        )
    )


Confidence = Annotated[
    float | None,
    typer.Option(
        "--confidence",
        help="Share of tasks whose lateness plans allow for, in 0.5..0.99; at first by the profile's residuals.",
    ),
]


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
        Console().print(_counts_table(summary, f"device {id}"))


def demo(
    tasks: Annotated[int, typer.Option("--tasks", help="Tasks in the stream.")] = 100,
    devices: Devices = None,
    policy: PolicyName = None,
    policy_file: PolicyFile = None,
    data: Data = None,
    scenario: ScenarioFile = None,
    assume: Assume = None,
    adapt: Adapt = True,
    seed: Seed = 0,
    p: ArrivalProbability = None,
    k: BudgetFactor = None,
    slot_s: SlotLength = None,
    bundle: RuntimeBundle = None,
    codecs: EdgeCodecs = "",
    confidence: Confidence = None,
    record: Annotated[
        Path | None, typer.Option("--record", help="Write the run here too, for offramp replay.")
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for the picture and run.json.")
    ] = Path("demo-output"),
    json_: JsonFlag = False,
) -> None:
    """Run an edge and devices as real processes on this machine, and show what came of their tasks."""
    import numpy as np

    from offramp.model.bundle import load_bundle
    from offramp.runtime.demo import DemoSettings, check_settings, run_demo
    from offramp.runtime.samples import samples_for
    from offramp.scenario import load_scenario
    from offramp.validation import dump_json, write_atomically

    drawn_from = scenario_from(scenario, tasks=tasks, devices=devices, p=p, k=k, slot_s=slot_s)
    told = drawn_from if assume is None else load_scenario(assume)
    chosen = _policy_or_default(policy)
    settings = DemoSettings(drawn_from, told, bundle, chosen, policy_file, adapt, seed, codecs, confidence)
    check_settings(settings)
    loaded = load_bundle(bundle)
    samples = samples_for(loaded, data, np.random.default_rng(seed))
    if samples.labels is None:
        errors.print(
            f"No labelled images: running on {samples.source}, accuracy unknown. Name some with --data.",
            soft_wrap=True,
        )
    with progress_bar(json_) as progress:
        bar = progress.add_task("starting", total=drawn_from.tasks)

        def show(doing: str, ended: int, record: TaskRecord | None) -> None:
            progress.update(bar, description=doing, completed=ended)

        run = run_demo(settings, loaded, samples, show)
    files = _write_run(run, output)
    if record is not None:
        write_atomically(record, dump_json(run.to_dict()))
    if json_:
        print_json(run.summary | files)
        return
    console = Console()
    console.print(
        _counts_table(run.summary, f"{chosen}, {drawn_from.tasks} tasks on {run.summary['devices']} devices")
    )
    console.print(_options_table(run))
    if run.summary["notice"] is not None:
        console.print(f"note: {run.summary['notice']}")
    for what, path in files.items():
        console.print(f"{what}: {path}")


def replay(
    run: Annotated[Path, typer.Argument(help="A run.json of the demo.")],
    json_: JsonFlag = False,
) -> None:
    """Simulate a recorded run under network timing, and hold both against each other task by task."""
    from offramp.runtime.replay import load_run
    from offramp.runtime.replay import replay as simulate_again

    report = simulate_again(load_run(run))
    if json_:
        print_json(report)
        return
    table = Table(title=f"{run}: medians, ms")
    for heading in ("stage", "measured", "simulated", "difference", "tasks"):
        table.add_column(heading, justify="right")
    for stage, medians in report["stages"].items():
        if medians is not None:
            times = [medians[name] for name in medians if name.endswith("_s")]
            shown = [f"{1000 * seconds:.1f}" for seconds in times]
            table.add_row(stage.removesuffix("_s"), *shown, str(medians["tasks"]))
    console = Console()
    console.print(table)
    console.print(
        f"on time: run {report['on_time_share']:.1%}, simulated with its decisions "
        f"{report['same_decisions_on_time_share']:.1%}, with its policy {report['simulated_on_time_share']:.1%}"
    )
    if report["finish_error"]:
        error = report["finish_error"]
        console.print(
            f"finish off by {error['median']:.1%} of the budget in the median, 95 %: {error['p95']:.1%}"
        )


def _policy_or_default(name: str | None) -> str:
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


def _write_run(run: DemoRun, folder: Path) -> dict[str, str]:
    """Write run.json and the picture; what was written. A picture that cannot be drawn is only said."""
    from offramp.runtime.picture import draw_run
    from offramp.validation import write_atomically

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OfframpError(
            "output", str(folder), f"cannot be made ({error.strerror})", "name another"
        ) from None
    written = {"run": str(folder / "run.json")}
    write_atomically(folder / "run.json", json.dumps(run.to_dict(), allow_nan=False) + "\n")
    title = f"{run.policy}: {run.summary['on_time']} of {run.summary['submitted']} on time"
    try:
        picture = draw_run(run.instance.tasks, run.records, run.instance.system.devices, title)
    except MissingExtraError as error:
        errors.print(f"No picture: {error}")
        return written
    write_atomically(folder / "run.svg", picture)
    return written | {"picture": str(folder / "run.svg")}


def _counts_table(summary: dict[str, object], title: str) -> Table:
    table = Table(title=title, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    submitted = cast(int, summary["submitted"])
    table.add_row("submitted", str(submitted))
    for end in End:
        count = cast(int, summary[str(end)])
        share = f"  ({count / submitted:.1%})" if submitted else ""
        table.add_row(str(end).replace("_", " "), f"{count}{share}")
    table.add_row("mean gain", _shown(summary["mean_gain"], "{:.3f}"))
    table.add_row("accuracy", _shown(summary["accuracy"], "{:.1%}"))
    table.add_row("accuracy expected of these exits", _shown(summary["expected_accuracy"], "{:.1%}"))
    table.add_row("finish, measured and predicted", _against(summary))
    return table


def _against(summary: dict[str, object]) -> str:
    """Predicted against measured duration, medians, and the median relative error."""
    error = summary["prediction_error"]
    measured_s, predicted_s = summary["median_duration_s"], summary["median_predicted_s"]
    if not isinstance(error, dict) or not isinstance(measured_s, float) or not isinstance(predicted_s, float):
        return "–"
    return f"{1000 * measured_s:.0f} ms, predicted {1000 * predicted_s:.0f} ms, off by {error['median']:.1%}"


def _options_table(run: DemoRun) -> Table:
    from offramp.runtime.demo import counts_by_option

    table = Table(title="where tasks were computed")
    coded = any(record.codec != UNCODED for record in run.records)
    for heading in ("exit", "layers on the device", "of", *(["codec"] * coded), "tasks", "on time"):
        table.add_column(heading, justify="right")
    for chosen, tasks, met in counts_by_option(run.records):
        layers = run.instance.system.exits[chosen.exit - 1].layers
        codec = [chosen.codec] * coded
        table.add_row(str(chosen.exit), str(chosen.cut), str(layers), *codec, str(tasks), str(met))
    return table


def _shown(value: object, form: str) -> str:
    return "unknown" if value is None else form.format(value)
