"""`offramp train-model` and `export`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from offramp.cli.arguments import errors, print_json
from offramp.cli.options import Data, JsonFlag, Seed
from offramp.errors import MissingExtraError, OfframpError
from offramp.training.settings import AUTO, EXIT_WEIGHTS, ExitTraining, TrainingSettings

if TYPE_CHECKING:
    from offramp.model.bundle import BundleManifest
    from offramp.training.teacher import Teacher

_DEFAULT, _EXIT_DEFAULT = TrainingSettings(), ExitTraining()

Distillation = Annotated[
    float, typer.Option(help="Share of an early exit's loss that comes from the last exit's answer.")
]


def train_model(
    output: Annotated[Path, typer.Option("-o", "--output", help="Run folder, for checkpoint and log.")],
    data: Data = None,
    epochs: Annotated[
        int, typer.Option(min=1, help="Passes over the training images. May be changed before the cool-down.")
    ] = _DEFAULT.epochs,
    warmup: Annotated[
        float, typer.Option(min=0, help="Epochs over which the rates rise from 0.")
    ] = _DEFAULT.warmup,
    cooldown: Annotated[
        float, typer.Option(min=0, help="Epochs at the end over which they fall to 0.")
    ] = _DEFAULT.cooldown,
    batch: Annotated[int, typer.Option(min=2, help="Images in a step.")] = _DEFAULT.batch,
    filter_lr: Annotated[
        float, typer.Option(help="Peak step of filters and hidden weights, relative to their size.")
    ] = _DEFAULT.filter_lr,
    other_lr: Annotated[float, typer.Option(help="Peak rate of everything else.")] = _DEFAULT.other_lr,
    shift: Annotated[int, typer.Option(min=0, help="Pixels by which images are moved.")] = _DEFAULT.shift,
    cutout: Annotated[int, typer.Option(min=0, help="Side of the blanked square.")] = _DEFAULT.cutout,
    mix: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the images that have a box from another image.")
    ] = _DEFAULT.mix,
    exit_weights: Annotated[
        str | None,
        typer.Option(
            help="What each exit adds to the loss, comma-separated.",
            show_default=",".join(f"{weight:g}" for weight in _DEFAULT.exit_weights),
        ),
    ] = None,
    distillation: Distillation = _DEFAULT.distillation,
    smoothing: Annotated[
        float, typer.Option(help="Label smoothing of the cross-entropy.")
    ] = _DEFAULT.smoothing,
    network: Annotated[
        str, typer.Option(help="alexnet, which ships, or wide, a teacher for it.")
    ] = _DEFAULT.network,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="What teaches this network: the folder of a finished run, or FILE.py:NAME or PACKAGE.MODULE:NAME, "
            "which gives a trained torch module when called."
        ),
    ] = None,
    teacher_weights: Annotated[
        Path | None, typer.Option(help="Safetensors file of that module's weights, if the call gives none.")
    ] = None,
    views: Annotated[
        int, typer.Option(min=2, help="Shifted views of each image that the teacher answers; even.")
    ] = _DEFAULT.views,
    start: Annotated[
        Path | None, typer.Option(help="Folder of a run whose weights this one begins with.")
    ] = None,
    seed: Seed = 0,
    resume: Annotated[
        bool | None,
        typer.Option(
            "--resume/--no-resume",
            help="Insist on continuing a run, or on starting one; without either, whichever fits the folder.",
        ),
    ] = None,
    json_: JsonFlag = False,
) -> None:
    """Train the branchy AlexNet on CIFAR-10. Ctrl-C keeps finished epochs; the same command continues."""
    _need_training()
    from offramp.images import load_images
    from offramp.training.checkpoint import load_checkpoint
    from offramp.training.state_file import weights_fingerprint
    from offramp.training.trainer import train_model as train

    taught_by = _teacher(teacher, teacher_weights)
    begun_with = None if start is None else load_checkpoint(start)
    settings = TrainingSettings(
        epochs=epochs,
        seed=seed,
        batch=batch,
        filter_lr=filter_lr,
        other_lr=other_lr,
        warmup=warmup,
        cooldown=cooldown,
        shift=shift,
        cutout=cutout,
        mix=mix,
        exit_weights=(
            EXIT_WEIGHTS.get(network, ())
            if exit_weights is None
            else _numbers("--exit-weights", exit_weights)
        ),
        distillation=distillation,
        smoothing=smoothing,
        network=network,
        teacher="" if taught_by is None else taught_by.fingerprint,
        views=views,
        start="" if begun_with is None else weights_fingerprint(begun_with.model),
    )
    training, test = load_images(data, "train"), load_images(data, "test")
    with _epochs_shown(json_) as show:
        try:
            done = train(
                training,
                test,
                output,
                settings,
                teacher=taught_by,
                start=begun_with,
                resume=resume,
                progress=show,
            )
        except KeyboardInterrupt:
            errors.print(f"stopped; {output} keeps the finished epochs, the same command continues")
            raise typer.Exit(130) from None
    if json_:
        print_json({"run": str(output), "epochs": len(done.log), "test_accuracy": done.log[-1].test_accuracy})
    else:
        typer.echo(f"{output}: {len(done.log)} epochs; next: offramp export {output} -o BUNDLE")


def _teacher(named: str | None, weights: Path | None) -> Teacher | None:
    from offramp.training.checkpoint import load_checkpoint
    from offramp.training.teacher import taught_by_module, taught_by_run

    is_module = named is not None and ":" in named and not Path(named).is_dir()
    if weights is not None and not is_module:
        raise OfframpError(
            "--teacher-weights",
            str(weights),
            "needs a module to load them",
            "name it with --teacher FILE.py:NAME",
        )
    if named is None:
        return None
    return taught_by_module(named, weights) if is_module else taught_by_run(load_checkpoint(Path(named)))


def attach_exits(
    module: Annotated[
        str,
        typer.Argument(help="FILE.py:NAME or PACKAGE.MODULE:NAME, which gives the torch module when called."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Bundle folder to write.")],
    at: Annotated[
        str,
        typer.Option(
            help="Submodules to leave after (or before:NAME), comma-separated, or auto: spread by their work."
        ),
    ] = "auto",
    exits: Annotated[int, typer.Option(min=2, help="Exits that auto makes, the last included.")] = 4,
    weights: Annotated[
        Path | None, typer.Option(help="Safetensors file of the module's weights, if the call gives none.")
    ] = None,
    trunk: Annotated[str, typer.Option(help="frozen: only the new heads learn; free: everything does.")] = (
        _EXIT_DEFAULT.trunk
    ),
    epochs: Annotated[
        int, typer.Option(min=1, help="Passes over the training images.")
    ] = _EXIT_DEFAULT.epochs,
    distillation: Distillation = _EXIT_DEFAULT.distillation,
    data: Data = None,
    seed: Seed = 0,
    json_: JsonFlag = False,
) -> None:
    """Give a torch module for normalised 32×32 images early exits, train them and write a bundle."""
    _need_training()
    from offramp.images import load_images
    from offramp.training.attach import attach_train_export, partial_path

    settings = ExitTraining(epochs=epochs, seed=seed, trunk=trunk, distillation=distillation)
    training, test = load_images(data, "train"), load_images(data, "test")
    names = AUTO if at == AUTO else tuple(name.strip() for name in at.split(","))
    with _epochs_shown(json_) as show:
        try:
            manifest = attach_train_export(
                module,
                output,
                training,
                test,
                settings,
                at=names,
                exits=exits,
                weights=weights,
                progress=show,
            )
        except KeyboardInterrupt:
            kept = partial_path(output)
            if kept.is_file():
                errors.print(f"stopped; {kept} keeps the finished epochs, the same command continues")
            raise typer.Exit(130) from None
    _print_bundle(manifest, output, json_)


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a training run.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Bundle folder to write.")],
    data: Data = None,
    json_: JsonFlag = False,
) -> None:
    """Export a run's last checkpoint to a bundle: one ONNX file, with its accuracy on the test images."""
    _need_training()
    from offramp.images import load_images
    from offramp.training.export import export_bundle

    test = load_images(data, "test")
    with Progress(console=errors, transient=True, disable=json_) as bar:
        task = bar.add_task("test images", total=len(test))
        manifest = export_bundle(
            run, output, test, progress=lambda images: bar.update(task, completed=images)
        )
    _print_bundle(manifest, output, json_)


def _print_bundle(manifest: BundleManifest, output: Path, json_: bool) -> None:
    if json_:
        print_json({"bundle": str(output), **manifest.model_dump(mode="json", exclude={"training"})})
        return
    table = Table(title=f"{manifest.name} in {output}")
    for name in ("exit", "accuracy", "operations"):
        table.add_column(name, justify="right")
    for number, exit in enumerate(manifest.exits, 1):
        accuracy = "unknown" if exit.accuracy is None else f"{exit.accuracy:.4f}"
        table.add_row(str(number), accuracy, f"{exit.operations:,}")
    Console().print(table)


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise OfframpError(option, text, "must be numbers with commas between") from None


def _need_training() -> None:
    for package in ("torch", "onnxscript", "safetensors"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "train")


@contextmanager
def _epochs_shown(quiet: bool) -> Iterator[Callable[[str, float, bool], None]]:
    """What shows how far a training is: told what it does, the share that is done, and whether an epoch has ended."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=errors,
        disable=quiet,
    ) as bar:
        task = bar.add_task("training", total=1.0)

        def show(message: str, share: float, finished: bool) -> None:
            if finished:
                bar.console.print(message, soft_wrap=True)
            bar.update(task, completed=share, description=message.partition("  train")[0])

        yield show
