"""`offramp simulate` without an instance: tasks by the million, drawn and counted."""

from __future__ import annotations

import time

from rich.console import Console
from rich.table import Table

from offramp.cli.arguments import errors, print_json, progress_bar
from offramp.experiments.cells import NetworkExits
from offramp.experiments.engine import Engine
from offramp.experiments.fleet import Fleet, check_fleet, run_fleet
from offramp.fleet.tally import Summary

__all__ = ["Fleet", "simulate_drawn"]


def simulate_drawn(fleet: Fleet, exits: NetworkExits, engine: Engine, json_: bool) -> None:
    """Run a fleet and print its sums. Raises OfframpError, see `check_fleet`."""
    check_fleet(fleet)
    began_s = time.monotonic()
    with progress_bar(json_) as progress:
        bar = progress.add_task("tasks", total=fleet.scenario.tasks)
        for done, result in run_fleet(fleet, exits, engine):
            progress.update(bar, completed=done)
            if result is not None:
                summary, notice = result
    if json_:
        print_json(
            {
                "format": "offramp.fleet/1",
                "policy": fleet.policy,
                "timing": fleet.timing,
                "seed": fleet.seed,
                "edges": fleet.edges,
                "scenario": fleet.scenario.model_dump(mode="json"),
                "notice": notice,
                **summary.to_dict(),
            }
        )
        return
    _print_summary(summary, f"{fleet.policy}, {fleet.timing} timing, {fleet.edges} edges")
    errors.print(f"{summary.submitted} tasks in {time.monotonic() - began_s:.1f} s")
    if notice is not None:
        errors.print(f"note: {notice}", soft_wrap=True)


def _print_summary(summary: Summary, title: str) -> None:
    table = Table(title=title)
    table.add_column("exit")
    table.add_column("finished tasks", justify="right")
    for exit, count in summary.exits.items():
        table.add_row(str(exit), str(count))
    console = Console()
    console.print(table)
    accuracy = "none" if summary.accuracy is None else f"{summary.accuracy:.3f}"
    console.print(
        f"{summary.submitted} tasks: on time {summary.on_time}, late {summary.late}, rejected {summary.rejected}, "
        f"expired {summary.expired}; gain {summary.gain:.4f}, accuracy {accuracy}"
    )
    console.print(
        f"{summary.span_s:.1f} s of the stream; edges computed {summary.edge_load:.1%} of the time, "
        f"the busiest {summary.busiest_edge_load:.1%}"
    )
