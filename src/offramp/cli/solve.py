"""`offramp solve`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from offramp.cli.arguments import progress_bar
from offramp.cli.options import JsonFlag
from offramp.errors import OfframpError
from offramp.solvers import SOLVERS, Exact, NetworkBound, SerialDp

if TYPE_CHECKING:
    from offramp.solvers import Solver


def solve(
    instance: Annotated[Path, typer.Argument(help="Instance file.")],
    solver: Annotated[str, typer.Option("--solver", help=f"One of {', '.join(SOLVERS)}.")] = "exact",
    slot_s: Annotated[
        float | None,
        typer.Option("--slot-s", help="serial-dp: length of a slot, seconds; without it the scenario's."),
    ] = None,
    max_labels: Annotated[
        int | None,
        typer.Option(
            "--max-labels",
            help="exact: keep to so many labels; a schedule and a bound, not always the optimum.",
        ),
    ] = None,
    json_: JsonFlag = False,
) -> None:
    """Decide an instance's tasks knowing all of them; gives the schedule and what it proves."""
    from offramp.cli.simulation import print_schedule
    from offramp.instance import load_instance

    if solver not in SOLVERS:
        raise OfframpError("solver", solver, f"one of {', '.join(SOLVERS)}", "choose one of these")
    with progress_bar(json_) as progress:
        bar = progress.add_task(f"{solver} (the first use compiles)", total=None)

        def show(met: int, count: int) -> None:
            progress.update(bar, completed=met, total=count)

        chosen = _make(solver, slot_s, max_labels, show)
        schedule = chosen.solve(load_instance(instance))
    if json_:
        typer.echo(schedule.to_json(), nl=False)
    else:
        print_schedule(schedule, solver)


def _make(
    name: str, slot_s: float | None, max_labels: int | None, progress: Callable[[int, int], None]
) -> Solver:
    """The solver with its options. Raises OfframpError for an option that it does not have."""
    for field, value, owner in (("slot-s", slot_s, "serial-dp"), ("max-labels", max_labels, "exact")):
        if value is not None and owner != name:
            raise OfframpError(
                field, value, f"is an option of {owner}", "leave it out, or choose that solver"
            )
    if name == "serial-dp":
        return SerialDp(slot_s)
    if name == "exact":
        return Exact(max_labels, progress)
    return NetworkBound()
