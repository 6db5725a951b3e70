"""`offramp stream`, `simulate` and `compare`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from offramp.cli.arguments import (
    engine_of,
    errors,
    exits_of,
    names_of,
    print_json,
    progress_bar,
    scenario_from,
)
from offramp.cli.options import (
    ALL_POLICIES,
    CORES,
    Adapt,
    Address,
    ArrivalProbability,
    Assume,
    BudgetFactor,
    BundleOption,
    Codecs,
    Devices,
    EdgeWorkers,
    EngineName,
    Jobs,
    JsonFlag,
    LinkStart,
    LinkTrace,
    MaxBatch,
    PolicyFile,
    PolicyNames,
    ScenarioFile,
    Seed,
    SlotLength,
    Tasks,
    TimingOption,
)
from offramp.errors import OfframpError
from offramp.observation import TIMINGS, Timing
from offramp.policies import POLICIES

if TYPE_CHECKING:
    from offramp.experiments.compare import PolicyRow
    from offramp.experiments.statistics import Interval
    from offramp.instance import Instance
    from offramp.linked_state import Replay
    from offramp.scenario import Scenario
    from offramp.schedule import Schedule


def timing_of(name: str) -> Timing:
    """A timing model by its name. Raises OfframpError."""
    for timing in TIMINGS:
        if name == timing:
            return timing
    raise OfframpError("timing", name, f"one of {', '.join(TIMINGS)}", "choose one of these")


ESTIMATE, MEAN = "estimate", "mean"
AssumeLink = Annotated[
    str,
    typer.Option(
        "--assume-link", help="What is decided on with --link-trace: estimate, mean, or a rate as 1000kbit."
    ),
]


def replay_of(path: Path | None, start_s: float, assume: str, timing: Timing) -> Replay | None:
    """Recorded links and what to take them for; None without a recording. Raises OfframpError."""
    from offramp.link import load_trace, parse_rate
    from offramp.linked_state import Replay

    if path is None:
        if assume != ESTIMATE:
            raise OfframpError("assume-link", assume, "only with --link-trace", "name a recorded uplink")
        return None
    if timing != "network":
        raise OfframpError("timing", timing, "must be network with --link-trace", "add --timing network")
    recording = load_trace(path, 0.0, 0.0)
    if assume == ESTIMATE:
        return Replay(recording, start_s)
    assumed = recording.bandwidth_bytes_per_s if assume == MEAN else parse_rate(assume)
    return Replay(recording, start_s, assumed)


def link_description(replay: Replay | None, path: Path | None) -> dict[str, object] | None:
    """What is printed about recorded links."""
    if replay is None or path is None:
        return None
    return {
        "trace": path.name,
        "mean_bytes_per_s": replay.recording.bandwidth_bytes_per_s,
        "assumed_bytes_per_s": replay.assumed,
    }


def stream(
    output: Annotated[Path, typer.Option("-o", "--output", help="Instance file to write.")],
    scenario: ScenarioFile = None,
    seed: Seed = 0,
    tasks: Tasks = None,
    devices: Devices = None,
    p: ArrivalProbability = None,
    k: BudgetFactor = None,
    slot_s: SlotLength = None,
    bundle: BundleOption = None,
    codecs: Codecs = None,
    json_: JsonFlag = False,
) -> None:
    """Draw an instance: tasks of a scenario, with the network's measured coefficients."""
    from offramp.experiments.cells import seeded_instance
    from offramp.validation import write_atomically

    drawn_from = scenario_from(scenario, tasks=tasks, devices=devices, p=p, k=k, slot_s=slot_s)
    instance = seeded_instance(drawn_from, exits_of(bundle, codecs), seed)
    write_atomically(output, instance.to_json())
    if json_:
        print_json({"instance": str(output), "tasks": len(instance.tasks), "seed": seed})
    else:
        typer.echo(f"{output}: {len(instance.tasks)} tasks on {instance.system.devices} devices")


def simulate(
    instance: Annotated[
        Path | None,
        typer.Argument(
            help="Instance file; without it, tasks of a scenario that are drawn, and only counted."
        ),
    ] = None,
    policy: Annotated[str, typer.Option("--policy", help=f"One of {', '.join(POLICIES)}.")] = "",
    timing: TimingOption = "paper",
    seed: Seed = 0,
    policy_file: PolicyFile = None,
    assume: Assume = None,
    adapt: Adapt = True,
    edge_workers: EdgeWorkers = None,
    max_batch: MaxBatch = None,
    link_trace: LinkTrace = None,
    link_start_s: LinkStart = 0.0,
    assume_link: AssumeLink = ESTIMATE,
    scenario: ScenarioFile = None,
    tasks: Tasks = None,
    devices: Devices = None,
    edges: Annotated[
        int,
        typer.Option("--edges", min=1, help="Edges that share the devices; each has arrivals of its own."),
    ] = 1,
    p: ArrivalProbability = None,
    k: BudgetFactor = None,
    slot_s: SlotLength = None,
    bundle: BundleOption = None,
    codecs: Codecs = None,
    jobs: Jobs = CORES,
    engine: EngineName = "local",
    address: Address = None,
    json_: JsonFlag = False,
) -> None:
    """Let a policy decide tasks one by one: an instance's, with their schedule, or millions, which it counts."""
    from offramp.cli import fleet
    from offramp.instance import load_instance
    from offramp.scenario import load_scenario

    if not policy:
        raise OfframpError("policy", policy, f"one of {', '.join(POLICIES)}", "add --policy NAME")
    chosen = timing_of(timing)
    replay = replay_of(link_trace, link_start_s, assume_link, chosen)
    told = None if assume is None else load_scenario(assume)
    drawn = (scenario, tasks, devices, p, k, slot_s, bundle, codecs)
    if instance is not None:
        if any(value is not None for value in drawn) or edges != 1:
            raise OfframpError(
                "instance", str(instance), "has its own tasks and system", "leave out what draws others"
            )
        loaded = load_instance(instance).with_edge(edge_workers, max_batch)
        _simulate_instance(loaded, policy, chosen, seed, policy_file, told, adapt, replay, json_)
        return
    if replay is not None:
        raise OfframpError("link-trace", str(link_trace), "needs an instance", "name an instance file")
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
    fleet.simulate_drawn(
        fleet.Fleet(
            drawn_from,
            edges,
            policy,
            chosen,
            seed,
            policy_file,
            adapt,
            told,
        ),
        exits_of(bundle, codecs),
        engine_of(engine, address, jobs),
        json_,
    )


def _simulate_instance(
    loaded: Instance,
    policy: str,
    timing: Timing,
    seed: int,
    policy_file: Path | None,
    told: Scenario | None,
    adapt: bool,
    replay: Replay | None,
    json_: bool,
) -> None:
    from offramp.experiments.cells import policy_rng
    from offramp.policies import Context, make_policy
    from offramp.simulator import simulate as run

    known = loaded.scenario if told is None else told
    context = Context(loaded.system, timing, known, policy_rng(seed), policy_file, adapt)
    schedule = run(loaded, make_policy(policy, context), timing, replay)
    if json_:
        typer.echo(schedule.to_json(), nl=False)
    else:
        print_schedule(schedule, f"{policy}, {timing} timing")


def print_schedule(schedule: Schedule, title: str) -> None:
    """A schedule's sums for a person: counts by exit, on-time share, gain and proof."""
    total = len(schedule.tasks)
    met = sum(row.on_time for row in schedule.tasks)
    table = Table(title=title)
    table.add_column("exit")
    table.add_column("tasks", justify="right")
    table.add_column("on time", justify="right")
    for exit in range(max(row.exit for row in schedule.tasks) + 1):
        rows = [row for row in schedule.tasks if row.exit == exit]
        table.add_row(str(exit) if exit else "dropped", str(len(rows)), str(sum(row.on_time for row in rows)))
    console = Console()
    console.print(table)
    bound = "none" if schedule.upper_bound is None else f"{schedule.upper_bound:.4f}"
    console.print(f"on time {met} of {total}, gain {schedule.gain:.4f}, bound {bound}, {schedule.status}")
    if schedule.notice is not None:
        errors.print(f"note: {schedule.notice}", soft_wrap=True)


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
