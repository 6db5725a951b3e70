"""`offramp stream` and `simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from offramp.cli.arguments import (
    check_edge_options,
    engine_of,
    errors,
    exits_of,
    print_json,
    scenario_from,
    timing_of,
)
from offramp.cli.links import ESTIMATE, replay_of
from offramp.cli.options import (
    CORES,
    Adapt,
    Address,
    ArrivalProbability,
    Assume,
    AssumeLink,
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
    ScenarioFile,
    Seed,
    SlotLength,
    Tasks,
    TimingOption,
)
from offramp.errors import OfframpError
from offramp.observation import Timing
from offramp.policies import POLICIES

if TYPE_CHECKING:
    from offramp.instance import Instance
    from offramp.linked_state import Replay
    from offramp.scenario import Scenario
    from offramp.schedule import Schedule


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
    check_edge_options(chosen, edge_workers, max_batch)
    replay = replay_of(link_trace, link_start_s, assume_link, chosen)
    told = None if assume is None else load_scenario(assume)
    drawn = (scenario, tasks, devices, p, k, slot_s, bundle, codecs)
    if instance is not None:
        if any(value is not None for value in drawn) or edges != 1:
            raise OfframpError(
                "instance", str(instance), "has its own tasks and system", "leave out what draws others"
            )
        if engine != "local" or address is not None or jobs != CORES:
            raise OfframpError(
                "instance", str(instance), "is played here, by one process", "leave out where to play it"
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
