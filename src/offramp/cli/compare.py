"""`offramp compare`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from offramp.cli.arguments import (
    check_edge_options,
    engine_of,
    errors,
    exits_of,
    names_of,
    print_json,
    progress_bar,
    scenario_from,
    timing_of,
)
from offramp.cli.links import ESTIMATE, link_description, replay_of
from offramp.cli.options import (
    ALL_POLICIES,
    Address,
    ArrivalProbability,
    AssumeLink,
    BudgetFactor,
    BundleOption,
    Codecs,
    Devices,
    EdgeWorkers,
    EngineName,
    JsonFlag,
    LinkStart,
    LinkTrace,
    MaxBatch,
    PolicyNames,
    ScenarioFile,
    SlotLength,
    Tasks,
    TimingOption,
)
from offramp.policies import POLICIES

if TYPE_CHECKING:
    from offramp.experiments.compare import PolicyRow
    from offramp.experiments.statistics import Interval


def compare(
    scenario: ScenarioFile = None,
    policies: PolicyNames = ALL_POLICIES,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Instances, with seeds 0, 1, ...")] = 20,
    timing: TimingOption = "paper",
    tasks: Tasks = None,
    devices: Devices = None,
    p: ArrivalProbability = None,
    k: BudgetFactor = None,
    slot_s: SlotLength = None,
    bundle: BundleOption = None,
    codecs: Codecs = None,
    edge_workers: EdgeWorkers = None,
    max_batch: MaxBatch = None,
    optimum: Annotated[bool, typer.Option(help="Solve or bound each instance, too.")] = True,
    link_trace: LinkTrace = None,
    link_start_s: LinkStart = 0.0,
    assume_link: AssumeLink = ESTIMATE,
    engine: EngineName = "local",
    address: Address = None,
    json_: JsonFlag = False,
) -> None:
    """Compare policies on the same instances: mean gain, on-time share, accuracy, with 95 % intervals."""
    from offramp.experiments import compare as experiment

    names = names_of(policies, POLICIES, "policies")
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
    chosen = timing_of(timing)
    check_edge_options(chosen, edge_workers, max_batch)
    replay = replay_of(link_trace, link_start_s, assume_link, chosen)
    # No solver bounds what recorded links allow.
    optimum = optimum and replay is None
    steps = experiment.compare(
        drawn_from,
        exits_of(bundle, codecs),
        names,
        seeds,
        chosen,
        optimum,
        replay,
        engine_of(engine, address, jobs=1),
    )
    rows: list[PolicyRow] = []
    with progress_bar(json_) as progress:
        bar = progress.add_task("seeds", total=seeds)
        for done, result in steps:
            progress.update(bar, completed=done)
            rows = result or rows
    if json_:
        print_json(
            {
                "scenario": drawn_from.model_dump(mode="json"),
                "timing": chosen,
                "seeds": seeds,
                "links": link_description(replay, link_trace),
                "policies": [row.to_dict() for row in rows],
            }
        )
    else:
        _print_comparison(rows, f"{seeds} seeds, {chosen} timing, mean ± 95 % interval")


def _print_comparison(rows: list[PolicyRow], title: str) -> None:
    table = Table(title=title)
    table.add_column("policy")
    for heading in ("gain", "on time", "accuracy", "of optimum"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.policy,
            _shown(row.gain, "{:.2f}"),
            _shown(row.on_time_share, "{:.3f}"),
            _shown(row.accuracy, "{:.3f}"),
            "" if row.share_of_optimum is None else f"{row.share_of_optimum:.3f}",
        )
    Console().print(table)
    for row in rows:
        if row.notice is not None:
            errors.print(f"note: {row.notice}", soft_wrap=True)


def _shown(interval: Interval, form: str) -> str:
    if math.isnan(interval.mean):
        return "–"
    if math.isnan(interval.half_width):
        return form.format(interval.mean)
    return f"{form.format(interval.mean)} ± {form.format(interval.half_width)}"
