"""`offramp bench`: what this machine makes of split inference."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from offramp.cli.arguments import print_json, progress_bar
from offramp.cli.options import Data, JsonFlag, RuntimeBundle, Seed


def bench(
    rates: Annotated[
        str, typer.Option("--rates", help="Shaped links, with commas.")
    ] = "1mbit,10mbit,100mbit",
    tasks: Annotated[
        int, typer.Option("--tasks", min=1, help="Tasks over each link, one at a time, twice.")
    ] = 30,
    policy: Annotated[
        str, typer.Option("--policy", help="Who decides; tasks that stay on the device are not counted.")
    ] = "edge-only",
    bundle: RuntimeBundle = None,
    data: Data = None,
    seed: Seed = 0,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the result here too.")] = None,
    json_: JsonFlag = False,
) -> None:
    """Hold real edge and device processes against head + bytes / rate + round trip + tail, one task at a time."""
    import numpy as np

    from offramp.link import parse_rate
    from offramp.model.bundle import load_bundle
    from offramp.runtime.bound import ROUNDS, against_bound, spaced
    from offramp.runtime.demo import check_settings
    from offramp.runtime.demo_processes import DemoSettings
    from offramp.runtime.samples import samples_for
    from offramp.validation import check_output, dump_json, write_atomically

    if output is not None:
        check_output(output)
    links = [parse_rate(rate, "rates") for rate in rates.split(",")]
    loaded = load_bundle(bundle)
    samples = samples_for(loaded, data, np.random.default_rng(seed))
    found = []
    with progress_bar(json_) as progress:
        bar = progress.add_task("starting", total=ROUNDS * tasks * len(links))
        for number, rate in enumerate(links):
            scenario = spaced(loaded, "", tasks, rate)
            settings = DemoSettings(scenario, scenario, bundle, policy, None, True, seed)
            check_settings(settings)

            def show(ended: int, done: int = ROUNDS * number * tasks, rate: float = rate) -> None:
                progress.update(bar, description=_named(rate), completed=done + ended)

            found.append(against_bound(loaded, settings, samples, show))
    result = {
        "format": "offramp.bench/1",
        "policy": policy,
        "links": [
            asdict(each) | {"median_ratio": each.median_ratio, "median_paced_ratio": each.median_paced_ratio}
            for each in found
        ],
    }
    if output is not None:
        write_atomically(output, dump_json(result))
    if json_:
        print_json(result)
        return
    table = Table(title=f"{policy}, one task at a time: medians, ms")
    for heading in (
        "link",
        "tasks",
        "head",
        "bytes / rate",
        "round trip",
        "tail",
        "bound",
        "measured",
        "ratio",
        "paced",
    ):
        table.add_column(heading, justify="right")
    for each in found:
        times = (each.head_s, each.link_s, each.round_trip_s, each.tail_s, each.bound_s, each.measured_s)
        table.add_row(
            _named(each.bandwidth_bytes_per_s),
            str(each.tasks),
            *(f"{1000 * seconds:.2f}" for seconds in times),
            f"{each.median_ratio:.2f}",
            f"{each.median_paced_ratio:.2f}",
        )
    Console().print(table)


def _named(bytes_per_s: float) -> str:
    return f"{bytes_per_s * 8e-6:g} Mbit/s"
