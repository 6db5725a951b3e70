"""Codecs on the command line: measured with progress, and shown for each cut."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from offramp.cli.arguments import errors

if TYPE_CHECKING:
    from offramp.host_profile import HostProfile
    from offramp.images import ImageSet
    from offramp.model.bundle import Bundle
    from offramp.model.codec_profiler import Coded
    from offramp.model.executor import ChainExecutor

MeasuredCodecs = Annotated[
    str | None,
    typer.Option("--codecs", help="Codecs to measure at each cut, with commas, or all; needs images."),
]


def coded_accuracy(
    executor: ChainExecutor, test: ImageSet, codecs: tuple[str, ...]
) -> tuple[int, dict[int, int], dict[Coded, int]]:
    """Images, and how many of them each exit has right without and with each lossy codec at each cut."""
    from offramp.model.codec_profiler import count_right_coded

    assert test.labels is not None  # what is read from a data set has labels
    found: tuple[int, dict[int, int], dict[Coded, int]] = (0, {}, {})
    with Progress(console=errors, transient=True) as progress:
        bar = progress.add_task("images through codecs", total=len(test.images))
        for found in count_right_coded(executor, test.images, test.labels, codecs):
            progress.update(bar, completed=found[0])
    return found


def profile_codecs(
    executor: ChainExecutor,
    profile: HostProfile,
    codecs: tuple[str, ...],
    test: ImageSet,
    *,
    beside: bool,
    repeats: int | None,
    limit_s: float,
    seed: int,
) -> HostProfile:
    """The profile with codecs measured on images; `beside` scales times to the host that it was made on."""
    from offramp.model.codec_profiler import codec_rows, measure_codecs, with_codecs
    from offramp.model.profiler import USUAL_REPEATS

    found = None
    with Progress(console=errors, transient=True) as progress:
        bar = progress.add_task("codecs", total=repeats or USUAL_REPEATS)
        for found in measure_codecs(
            executor,
            test.images,
            np.random.default_rng(seed),
            codecs,
            sizes=profile.sizes,
            beside=profile if beside else None,
            repeats=repeats or USUAL_REPEATS,
            limit_s=limit_s,
        ):
            progress.update(bar, completed=found.repeats)
    assert found is not None
    return with_codecs(profile, codec_rows(executor, found, *coded_accuracy(executor, test, codecs)))


def coded_rows(done: int, right: dict[int, int], coded: dict[Coded, int]) -> dict[int, list[dict[str, Any]]]:
    """For each exit its cuts and lossy codecs, with accuracy and what is lost."""
    rows: dict[int, list[dict[str, Any]]] = {number: [] for number in right}
    for (number, cut, codec), count in coded.items():
        lost = (right[number] - count) / done
        rows[number].append({"cut": cut, "codec": codec, "accuracy": count / done, "lost_accuracy": lost})
    return rows


def print_coded_accuracy(loaded: Bundle, rows: dict[int, list[dict[str, Any]]]) -> None:
    """A table for each exit of what codecs lose."""
    for number, cuts in rows.items():
        table = Table(title=f"exit {number} with codecs", title_justify="left")
        for name in ("cut", "bytes an input", "codec", "accuracy", "points lost"):
            table.add_column(name, justify="left" if name == "codec" else "right")
        for row in cuts:
            table.add_row(
                str(row["cut"]),
                f"{loaded.model.exit(number).cut_bytes[row['cut']]:,}",
                row["codec"],
                f"{row['accuracy']:.4f}",
                f"{100 * row['lost_accuracy']:+.2f}",
            )
        Console().print(table)


def print_codecs(profile: HostProfile) -> None:
    """A table for each exit of what its profile says of codecs, at 5 inputs."""
    for exit in profile.exits:
        if not exit.codecs:
            continue
        table = Table(title=f"exit {exit.output} with codecs, 5 inputs", title_justify="left")
        for name in ("cut", "codec", "bytes", "times fewer", "ms encode", "ms decode", "points lost"):
            table.add_column(name, justify="left" if name == "codec" else "right")
        for row in exit.codecs:
            plain, coded = (5 * line[0] + line[1] for line in (exit.output_bytes[row.cut], row.output_bytes))
            table.add_row(
                str(row.cut),
                row.codec,
                f"{coded:,.0f}",
                f"{plain / coded:.2f}",
                *(f"{1e3 * (5 * line[0] + line[1]):.3f}" for line in (row.encode_s, row.decode_s)),
                f"{100 * row.lost_accuracy:+.2f}",
            )
        Console().print(table)


def test_images(data: Path | None, most: int | None) -> ImageSet:
    """The test images, or the first `most` of them. Raises OfframpError."""
    import dataclasses

    from offramp.images import load_images

    test = load_images(data, "test")
    if most is None or test.labels is None:
        return test
    return dataclasses.replace(test, images=test.images[:most], labels=test.labels[:most])
