"""`offramp figure`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from offramp.cli.arguments import (
    engine_of,
    errors,
    exits_of,
    names_of,
    print_json,
    progress_bar,
    scenario_from,
    timing_of,
)
from offramp.cli.options import (
    ALL_POLICIES,
    CORES,
    Address,
    BundleOption,
    EngineName,
    Jobs,
    JsonFlag,
    PolicyNames,
    ScenarioFile,
    TimingOption,
)
from offramp.policies import POLICIES


def figure(
    number: Annotated[int, typer.Argument(help="3, 5, 6 or 7, as the paper counts them.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for data, picture and finished cells.")
    ],
    timing: TimingOption = "paper",
    policies: PolicyNames = ALL_POLICIES,
    seeds: Annotated[int, typer.Option("--seeds", min=2, help="Instances a cell.")] = 20,
    jobs: Jobs = CORES,
    engine: EngineName = "local",
    address: Address = None,
    scenario: ScenarioFile = None,
    bundle: BundleOption = None,
    json_: JsonFlag = False,
) -> None:
    """Remake a figure of the paper from measured profiles: data as JSON, and a picture drawn from it.

    Finished cells are kept in the folder and not run again; Ctrl-C loses only those that are running.
    """
    from offramp.experiments import figures

    figures.check_number(number)
    base, exits = scenario_from(scenario), exits_of(bundle)
    chosen, names = timing_of(timing), names_of(policies, POLICIES, "policies")
    runner = engine_of(engine, address, jobs)
    data: dict[str, Any] = {}
    if number == 3:
        data = figures.gain_data(base, exits)
    else:
        total = sum(
            len(cells)
            for cells in figures.sweep_cells(figures.SWEEPS[number], base, names, chosen, seeds).values()
        )
        steps = figures.run_sweep(number, base, exits, names, chosen, seeds, runner, output)
        with progress_bar(json_) as progress:
            bar = progress.add_task(f"figure {number}, {chosen}", total=total)
            for step in steps:
                progress.advance(bar)
                data = step or data
    written = figures.save_figure(data, output)
    if json_:
        print_json({"figure": number, "files": [str(path) for path in written]})
    else:
        errors.print(*written, sep="\n")
