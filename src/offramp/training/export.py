"""From a training run to a bundle: one ONNX file, checked against torch, with its measured accuracies."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from offramp.errors import OfframpError
from offramp.images import CIFAR10_CLASSES, ImageSet
from offramp.model.blocks import load_model as load_branchy
from offramp.model.bundle import BundleManifest, ExitInfo, save_bundle
from offramp.model.evaluate import labels_of
from offramp.model.executor import ChainExecutor
from offramp.model.inputs import image_inputs
from offramp.training.checkpoint import Checkpoint, load_checkpoint
from offramp.training.deployment import INPUT_NAME, DeployedNetwork, to_onnx
from offramp.training.trainer import load_model

MODEL_NAME = "model.onnx"
NAME = "branchy-alexnet-cifar10"
MIN_AGREEMENT = 0.999
_BATCH = 250
_PACKAGES = ("numpy", "onnx", "onnxruntime", "onnxscript", "torch")


def export_bundle(
    run: Path, output: Path, test: ImageSet, *, progress: Callable[[int], None] = lambda images: None
) -> BundleManifest:
    """Write the last checkpoint of `run` as a bundle into the folder `output`.

    Every exit's accuracy is that of the exported file, run as a chain of blocks as the runtime runs it.
    Its labels are compared with torch's, image by image. `progress` is told how many images are done.

    Raises:
        OfframpError: no checkpoint in `run`, test images without labels, or the exported file agrees with
            torch on fewer than 99.9 % of some exit's labels.
    """
    if test.labels is None or not len(test):
        raise OfframpError("data", test.source, "must have labelled images")
    checkpoint = load_checkpoint(run)
    network = DeployedNetwork(load_model(checkpoint))
    outputs = [f"exit{number}" for number in range(1, len(checkpoint.log[-1].test_accuracy) + 1)]
    content = to_onnx(network, outputs).SerializeToString(deterministic=True)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / MODEL_NAME
        path.write_bytes(content)
        model = load_branchy(path, outputs)
        answers = chain_labels(ChainExecutor(model), test.images, progress)
    agreement = (answers == torch_labels(network, test.images)).mean(axis=1)
    if agreement.min() < MIN_AGREEMENT:
        raise OfframpError(
            "export", f"{agreement.min():.4f}", f"the ONNX file must agree with torch on {MIN_AGREEMENT:.1%}"
        )
    exits = tuple(
        ExitInfo(
            output=name,
            accuracy=int((labels == test.labels).sum()) / len(test),
            images=len(test),
            operations=branch.macs,
        )
        for name, labels, branch in zip(outputs, answers, model.exits, strict=True)
    )
    manifest = BundleManifest(
        name=NAME,
        model=MODEL_NAME,
        input=INPUT_NAME,
        classes=CIFAR10_CLASSES if checkpoint.classes == len(CIFAR10_CLASSES) else None,
        exits=exits,
        training=_history(checkpoint, agreement),
        files={},
    )
    return save_bundle(output, manifest, {MODEL_NAME: content})


def chain_labels(
    executor: ChainExecutor, images: npt.NDArray[np.uint8], progress: Callable[[int], None]
) -> npt.NDArray[np.int64]:
    """Labels [exits, n] of the exported file, from its chain of blocks."""
    parts = []
    for start in range(0, len(images), _BATCH):
        part = images[start : start + _BATCH]
        answers = executor.run_exits(image_inputs(part, executor.model.inputs))
        parts.append(np.stack([labels_of(answers[number]) for number in sorted(answers)]))
        progress(start + len(part))
    return np.concatenate(parts, axis=1)


@torch.no_grad()
def torch_labels(network: DeployedNetwork, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Labels [exits, n] of the torch module in float32."""
    parts = [
        torch.stack(
            [logits.argmax(1) for logits in network(torch.from_numpy(images[start : start + _BATCH]))]
        )
        for start in range(0, len(images), _BATCH)
    ]
    labels: npt.NDArray[np.int64] = torch.cat(parts, dim=1).numpy()
    return labels


def _history(checkpoint: Checkpoint, agreement: npt.NDArray[np.float64]) -> dict[str, Any]:
    """What the manifest says of the training: enough to do it again and to see how it went."""
    settings = checkpoint.settings
    return {
        "command": f"offramp train-model --data DIR -o RUN {settings.as_options()}",
        "seed": settings.seed,
        "settings": settings.as_json(),
        "finished": checkpoint.finished,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
        "torch_agreement": [round(float(share), 5) for share in agreement],
        "log": [entry.as_json() for entry in checkpoint.log],
    }
