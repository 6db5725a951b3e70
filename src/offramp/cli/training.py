"""The commands that make a bundle: train the network, export it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from offramp.errors import MissingExtraError, OfframpError
from offramp.images import load_images

Data = Annotated[Path | None, typer.Option(help="Folder with the CIFAR-10 files; else OFFRAMP_DATA, else the hub.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def train_model(
    output: Annotated[Path, typer.Option("-o", "--output", help="Run folder: checkpoint and log.")],
    data: Data = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same run.")] = 0,
    resume: Annotated[
        bool | None,
        typer.Option("--resume/--no-resume", help="Require (or refuse) an unfinished run in the folder."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train the branchy AlexNet on CIFAR-10; stop it with Ctrl-C, run it again to continue."""
    _need_torch()
    from offramp.training.checkpoint import TrainingSettings
    from offramp.training.trainer import train_model as train

    settings = TrainingSettings(seed=seed) if epochs is None else TrainingSettings(seed=seed, epochs=epochs)
    training, test = load_images(data, "train"), load_images(data, "test")
    with _ProgressBar(as_json) as bar:
        try:
            done = train(training, test, output, settings, resume=resume, progress=bar.update)
        except KeyboardInterrupt:
            bar.say(f"stopped; finished epochs are in {output}, the same command continues")
            raise typer.Exit(130) from None
    accuracy = done.log[-1].test_accuracy
    if as_json:
        print(json.dumps({"run": str(output), "epochs": len(done.log), "test_accuracy": accuracy}))
    else:
        typer.echo(f"trained: {output}; next: offramp export {output} -o BUNDLE")
