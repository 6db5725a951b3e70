"""`offramp demo`, and `replay` of what it recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from offramp.cli.arguments import errors, print_json, progress_bar, scenario_from
from offramp.cli.links import check_link_start
from offramp.cli.options import (
    Adapt,
    ArrivalProbability,
    Assume,
    BudgetFactor,
    Confidence,
    Data,
    Devices,
    EdgeCodecs,
    EdgeWorkers,
    JsonFlag,
    LinkStart,
    LinkTrace,
    MaxBatch,
    PolicyFile,
    PolicyName,
    RuntimeBundle,
    ScenarioFile,
    Seed,
    SlotLength,
    Tasks,
)
from offramp.cli.report import counts_table, options_table
from offramp.cli.runtime import policy_or_default
from offramp.errors import MissingExtraError

if TYPE_CHECKING:
    from offramp.runtime.demo import DemoRun
    from offramp.runtime.outcomes import TaskRecord


def demo(
    tasks: Tasks = 100,
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
    edge_workers: EdgeWorkers = None,
    max_batch: MaxBatch = None,
    link_trace: LinkTrace = None,
    link_start_s: LinkStart = 0.0,
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
    from offramp.runtime.demo import check_settings, over_recording, run_demo
    from offramp.runtime.demo_processes import DemoSettings
    from offramp.runtime.samples import samples_for
    from offramp.scenario import load_scenario
    from offramp.validation import check_output, dump_json, make_folder, write_atomically

    drawn_from = scenario_from(
        scenario,
        tasks=tasks,
        devices=devices,
        p=p,
        k=k,
        slot_s=slot_s,
        edge_workers=edge_workers,
        max_batch=max_batch,
    )
    told = drawn_from if assume is None else load_scenario(assume)
    chosen = policy_or_default(policy)
    settings = DemoSettings(drawn_from, told, bundle, chosen, policy_file, adapt, seed, codecs, confidence)
    check_link_start(link_trace, link_start_s)
    if link_trace is not None:
        settings = over_recording(settings, link_trace, link_start_s)
    check_settings(settings)
    if record is not None:
        check_output(record, "record")
    loaded = load_bundle(bundle)
    samples = samples_for(loaded, data, np.random.default_rng(seed))
    make_folder(output)
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
        files["record"] = str(record)
    if json_:
        print_json(run.summary | files)
        return
    console = Console()
    console.print(
        counts_table(run.summary, f"{chosen}, {drawn_from.tasks} tasks on {run.summary['devices']} devices")
    )
    console.print(options_table(run))
    if run.summary["notice"] is not None:
        console.print(f"note: {run.summary['notice']}")
    for what, path in files.items():
        console.print(f"{what}: {path}")


def replay(
    run: Annotated[Path, typer.Argument(help="A run.json of the demo.")],
    json_: JsonFlag = False,
) -> None:
    """Rehearse a recorded run with its measured terms, and hold both against each other task by task."""
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
    terms = report["terms"]
    factors = [*terms["device_factor"], terms["edge_factor"]]
    console.print(
        "measured over declared time: "
        + ", ".join("-" if factor is None else f"{factor:.2f}" for factor in factors)
        + " (devices, then edge)"
    )
    if report["finish_error"]:
        error = report["finish_error"]
        declared = report["declared"]["finish_error"]
        console.print(
            f"finish off by {error['median']:.1%} of the budget in the median, 95 %: {error['p95']:.1%}"
            + (f"; by the declared terms {declared['median']:.1%}" if declared else "")
        )


def _write_run(run: DemoRun, folder: Path) -> dict[str, str]:
    """Write run.json and the picture; what was written. A picture that cannot be drawn is only said."""
    from offramp.runtime.picture import draw_run
    from offramp.validation import write_atomically

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
