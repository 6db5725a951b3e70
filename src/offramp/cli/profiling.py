"""`offramp profile`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from offramp.cli.arguments import errors, print_json
from offramp.cli.coding import (
    MeasuredCodecs,
    print_codecs,
    profile_codecs,
    test_images,
)
from offramp.cli.options import BundleArgument, InputSeed, JsonFlag, MostImages, Threads
from offramp.errors import OfframpError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from offramp.host_profile import HostProfile
    from offramp.model.executor import ChainExecutor
    from offramp.model.profiler import Measurements

VERIFY_REPEATS = 7


def profile(
    bundle: BundleArgument = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Profile file to write.")] = None,
    into_bundle: Annotated[
        bool, typer.Option("--into-bundle", help="Store the profile in the bundle, in place of its own.")
    ] = False,
    repeats: Annotated[
        int | None,
        typer.Option("--repeats", min=3, help="Runs of each exit at each size; else 30, or 8 s of them."),
    ] = None,
    limit_s: Annotated[
        float,
        typer.Option("--limit-s", min=0, help="Stop early after so many seconds, at 3 repeats or more."),
    ] = 120.0,
    threads: Threads = 1,
    verify: Annotated[
        bool, typer.Option("--verify", help="Then measure every exit and cut anew against the prediction.")
    ] = False,
    seed: InputSeed = 0,
    codecs: MeasuredCodecs = None,
    keep_layers: Annotated[
        bool, typer.Option("--keep-layers", help="Measure codecs only; keep the bundle's own profile else.")
    ] = False,
    data: Annotated[Path | None, typer.Option("--data", help="Image folder for --codecs.")] = None,
    images: MostImages = None,
    json_: JsonFlag = False,
) -> None:
    """Time every layer on this host for sizes 1 to 10 and fit slope and intercept; with --codecs these, too."""
    from offramp.model.bundle import add_profile, load_bundle
    from offramp.model.codecs import chosen_codecs
    from offramp.model.executor import ChainExecutor
    from offramp.validation import write_atomically

    loaded = load_bundle(bundle)
    if into_bundle and not loaded.path.is_dir():
        raise OfframpError(
            "--into-bundle", str(loaded.path), "needs a bundle folder", "use -o with an ONNX file"
        )
    if keep_layers and codecs is None:
        raise OfframpError("--keep-layers", keep_layers, "leaves nothing to measure", "add --codecs all")
    chosen = () if codecs is None else chosen_codecs(codecs)
    test = test_images(data, images) if chosen else None
    executor = ChainExecutor(loaded.model, threads=threads)
    known = loaded.accuracies
    result = loaded.profile() if keep_layers else measured_profile(executor, repeats, limit_s, seed, known)
    if test is not None:
        result = profile_codecs(
            executor, result, chosen, test, beside=keep_layers, repeats=repeats, limit_s=limit_s, seed=seed
        )
    if verify:
        result = _verified(executor, result, seed)
    if output is not None:
        write_atomically(output, result.to_json())
    if into_bundle:
        add_profile(loaded.path, result)
    if json_:
        print_json(result.model_dump(mode="json"))
    else:
        _print_profile(result)


def measured_profile(
    executor: ChainExecutor,
    repeats: int | None,
    limit_s: float,
    seed: int,
    accuracies: Sequence[float | None],
) -> HostProfile:
    """This host's profile of a model, measured now with a progress bar."""
    from offramp.model.profiler import build_profile

    return build_profile(executor, _measure(executor, repeats, limit_s, seed), accuracies)


def _measure(executor: ChainExecutor, repeats: int | None, limit_s: float, seed: int) -> Measurements:
    """Measure with a progress bar; Ctrl-C ends it early and keeps the finished repeats."""
    from offramp.model.profiler import MIN_REPEATS, USUAL_REPEATS, measure

    found = None
    with Progress(console=errors, transient=True) as progress:
        bar = progress.add_task("repeats", total=repeats or USUAL_REPEATS)
        try:
            for found in measure(executor, np.random.default_rng(seed), repeats=repeats, limit_s=limit_s):
                progress.update(bar, completed=found.repeats)
        except KeyboardInterrupt:
            if found is None or found.repeats < MIN_REPEATS:
                raise
            errors.print(f"stopped after {found.repeats} repeats, which are kept")
    assert found is not None
    return found


def _verified(executor: ChainExecutor, result: HostProfile, seed: int) -> HostProfile:
    """The profile with the quantiles of its own prediction errors."""
    from offramp.model.verify import prediction_errors

    relative = np.zeros(1)
    with Progress(console=errors, transient=True) as progress:
        bar = progress.add_task("verification", total=VERIFY_REPEATS)
        for found in prediction_errors(executor, result, np.random.default_rng(seed + 1), VERIFY_REPEATS):
            relative = found
            progress.advance(bar)
    quantiles = {f"p{q}": float(np.quantile(relative, q / 100)) for q in (50, 95, 100)}
    return result.model_copy(update={"prediction_error": quantiles})


def _tabled(result: HostProfile) -> str:
    """Which layers are not linear in the size, and what is used instead."""
    named = [
        f"{exit.output}/{layer.name}"
        for exit in result.exits
        for layer in exit.layers
        if layer.table_s is not None
    ]
    total = sum(len(exit.layers) for exit in result.exits)
    if not named:
        return f"plans use the line of each of the {total} layers"
    return (
        f"not linear in the size, so plans use a table of the medians: {len(named)} of {total} layers "
        f"({', '.join(named)})"
    )


def _print_profile(result: HostProfile) -> None:
    console = Console()
    console.print(
        f"{result.host.cpu}, {result.threads} thread, {result.repeats} repeats, {result.clock} time"
    )
    for exit in result.exits:
        table = Table(title=f"exit {exit.output}", title_justify="left")
        for name in ("layer", "ms an input", "ms fixed", "R²", "p95 residual", "linear in size"):
            table.add_column(name, justify="left" if name == "layer" else "right")
        for layer in exit.layers:
            slope, intercept = layer.seconds
            table.add_row(
                layer.name,
                f"{1e3 * slope:.3f}",
                f"{1e3 * intercept:.3f}",
                f"{layer.r2:.4f}",
                f"{layer.residual_quantiles['p95']:+.0%}",
                "no: a table" if layer.table_s else "yes" if layer.linear else "no: see median_s",
            )
        console.print(table)
    console.print(_tabled(result))
    print_codecs(result)
    if result.prediction_error is not None:
        found = ", ".join(f"{name} {value:.1%}" for name, value in result.prediction_error.items())
        console.print(f"predicted against measured, every exit, cut and size: {found}")
