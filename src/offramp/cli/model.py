"""`offramp inspect` and `evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from offramp.cli.arguments import errors, print_json
from offramp.cli.coding import (
    MeasuredCodecs,
    coded_accuracy,
    coded_rows,
    print_coded_accuracy,
    test_images,
)
from offramp.cli.options import BundleArgument, Data, JsonFlag, MostImages, Threads
from offramp.errors import OfframpError

if TYPE_CHECKING:
    from offramp.images import ImageSet
    from offramp.model.bundle import Bundle
    from offramp.model.executor import ChainExecutor

CHECK_SEED = 0


def inspect(
    bundle: BundleArgument = None,
    check: Annotated[
        bool, typer.Option("--check", help="Run every cut, head then tail, against the whole model.")
    ] = False,
    json_: JsonFlag = False,
) -> None:
    """Show exits, layers, operations and the bytes at each cut."""
    from offramp.model.bundle import load_bundle

    loaded = load_bundle(bundle)
    worst = _largest_error(loaded) if check else None
    if json_:
        print_json(_inspection(loaded, worst))
        return
    console = Console()
    for number in range(1, len(loaded.model.exits) + 1):
        console.print(_exit_table(loaded, number))
    if worst is not None:
        console.print(f"head + tail against the whole model: largest relative error {worst:.2g}")


def _largest_error(loaded: Bundle) -> float:
    from offramp.model.executor import ChainExecutor
    from offramp.model.verify import cut_errors

    executor = ChainExecutor(loaded.model)
    cuts = sum(len(exit.cuts) for exit in loaded.model.exits)
    worst = 0.0
    with Progress(console=errors, transient=True) as progress:
        bar = progress.add_task("cuts", total=cuts)
        for number, cut, error in cut_errors(executor, np.random.default_rng(CHECK_SEED)):
            if not np.isfinite(error):
                raise OfframpError(f"exit {number}, cut {cut}", error, "head + tail must give finite logits")
            worst = max(worst, error)
            progress.advance(bar)
    return worst


def _inspection(loaded: Bundle, worst: float | None) -> dict[str, Any]:
    exits = [
        {
            "exit": number,
            "output": exit.output,
            "accuracy": info.accuracy,
            "operations": exit.macs,
            "layers": len(exit.layers),
            "cuts": [
                {"cut": cut, "bytes_per_input": count, "tensors": [spec.name for spec in specs]}
                for cut, (count, specs) in enumerate(zip(exit.cut_bytes, exit.cuts, strict=True))
            ],
        }
        for number, (exit, info) in enumerate(zip(loaded.model.exits, loaded.manifest.exits, strict=True), 1)
    ]
    return {"exits": exits, "max_relative_error": worst}


def _exit_table(loaded: Bundle, number: int) -> Table:
    exit, info = loaded.model.exit(number), loaded.manifest.exits[number - 1]
    accuracy = "unknown" if info.accuracy is None else f"{info.accuracy:.4f}"
    table = Table(
        title=f"exit {number} ({exit.output}): accuracy {accuracy}, {exit.macs:,} operations an input",
        title_justify="left",
    )
    for name in ("cut", "bytes an input", "tensors that cross", "layer before it", "operations"):
        table.add_column(name, justify="right" if name in ("cut", "bytes an input", "operations") else "left")
    for cut, (count, specs) in enumerate(zip(exit.cut_bytes, exit.cuts, strict=True)):
        layer = exit.layers[cut - 1] if cut else None
        table.add_row(
            str(cut),
            f"{count:,}",
            ", ".join(f"{spec.name} {spec.dtype}" for spec in specs),
            layer.name if layer else "the input",
            f"{layer.macs:,}" if layer else "",
        )
    return table


def evaluate(
    bundle: BundleArgument = None,
    data: Data = None,
    threads: Threads = 2,
    codecs: MeasuredCodecs = None,
    images: MostImages = None,
    json_: JsonFlag = False,
) -> None:
    """Accuracy of every exit on the test images, and of every cut with codecs."""
    from offramp.model.bundle import load_bundle
    from offramp.model.codecs import chosen_codecs
    from offramp.model.executor import ChainExecutor

    chosen = () if codecs is None else chosen_codecs(codecs)
    loaded = load_bundle(bundle)
    test = test_images(data, images)
    executor = ChainExecutor(loaded.model, threads=threads)
    right: dict[int, int] = {}
    coded: dict[int, list[dict[str, Any]]] = {}
    done = 0
    if chosen:
        done, right, counted = coded_accuracy(executor, test, chosen)
        coded = coded_rows(done, right, counted)
    else:
        done, right = _count_right(executor, test)
    rows: list[dict[str, Any]] = [
        {"exit": number, "accuracy": count / done, "images": done} for number, count in sorted(right.items())
    ]
    if json_:
        if chosen:
            rows = [{**row, "codecs": coded[int(row["exit"])]} for row in rows]
        print_json({"exits": rows})
        return
    table = Table(title=f"{loaded.manifest.name} on {done:,} images")
    for name in ("exit", "accuracy", "in the manifest"):
        table.add_column(name, justify="right")
    for row, known in zip(rows, loaded.accuracies, strict=True):
        table.add_row(
            str(row["exit"]), f"{row['accuracy']:.4f}", "unknown" if known is None else f"{known:.4f}"
        )
    Console().print(table)
    print_coded_accuracy(loaded, coded)


def measured_right(executor: ChainExecutor, data: Path | None) -> tuple[int, dict[int, int]]:
    """How many test images there are, and how many of them each exit answers right. Raises OfframpError."""
    return _count_right(executor, test_images(data, None))


def _count_right(executor: ChainExecutor, test: ImageSet) -> tuple[int, dict[int, int]]:
    from offramp.model.evaluate import count_right

    assert test.labels is not None  # what is read from a data set has labels
    done, right = 0, dict[int, int]()
    with Progress(console=errors, transient=True) as progress:
        bar = progress.add_task("images", total=len(test.images))
        for done, counts in count_right(executor, test.images, test.labels):
            right = counts
            progress.update(bar, completed=done)
    return done, right
