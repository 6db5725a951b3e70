"""`attach-exits`: from a named torch module to a bundle with early exits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from offramp.errors import OfframpError
from offramp.images import CIFAR10_CLASSES, ImageSet
from offramp.model.bundle import BundleManifest
from offramp.training.augment import CIFAR10_PIXELS, normalise
from offramp.training.exit_training import Progress, train_exits
from offramp.training.exits import attach_exits
from offramp.training.export import CheckSet, export_exits
from offramp.training.modules import load_module
from offramp.training.settings import AUTO, ExitTraining


def attach_train_export(
    reference: str,
    output: Path,
    train: ImageSet,
    test: ImageSet,
    settings: ExitTraining,
    *,
    at: Sequence[str] = AUTO,
    exits: int = 4,
    weights: Path | None = None,
    progress: Progress = lambda message, share, finished: None,
) -> BundleManifest:
    """Attach exits to the module that `reference` names, train them on `train`, write a checked bundle.

    The module takes images as `normalise` makes them. The bundle reads uint8 images; it is written when
    everything has succeeded. Until then `OUTPUT.partial` holds the finished epochs, and the same call goes on.

    Raises:
        OfframpError: see `load_module`, `attach_exits`, `train_exits` and `export_exits`.
    """
    if train.labels is None or test.labels is None:
        raise OfframpError("data", train.source, "must have labels")
    module = load_module(reference, weights)
    example = normalise(torch.from_numpy(train.images[:2])).contiguous()
    network = attach_exits(module, example, at, exits=exits, seed=settings.seed)
    if network.classes <= max(train.labels.max(), test.labels.max()):
        raise OfframpError("module", reference, f"tells {network.classes} classes apart, the data has more")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device)
    kept = partial_path(output)
    if not kept.parent.is_dir():
        raise OfframpError(
            "-o", str(output), "cannot be written (no such folder)", "give a folder that exists"
        )
    losses = train_exits(
        network, train.images, train.labels, settings, scale=CIFAR10_PIXELS, keep=kept, progress=progress
    )
    manifest = export_exits(
        network.cpu(),
        output,
        CheckSet(test.images, test.labels, test.source),
        name=reference.rpartition(":")[2],
        scale=CIFAR10_PIXELS,
        classes=CIFAR10_CLASSES if network.classes == len(CIFAR10_CLASSES) else None,
        training={"settings": settings.as_json(), "losses": [round(loss, 4) for loss in losses]},
    )
    kept.unlink(missing_ok=True)
    return manifest


def partial_path(output: Path) -> Path:
    """Where `attach_train_export` keeps finished epochs: beside the bundle to be written."""
    return output.with_name(f"{output.name}.partial")
