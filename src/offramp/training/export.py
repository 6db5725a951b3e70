"""From a trained network to a bundle: one ONNX file, checked against torch, with its measured accuracies."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
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
from offramp.model.tensors import Array
from offramp.training.augment import PixelScale
from offramp.training.checkpoint import Checkpoint, load_checkpoint
from offramp.training.deployment import DeployedNetwork, to_onnx
from offramp.training.exits import BranchedNetwork
from offramp.training.networks import load_model

MODEL_NAME = "model.onnx"
NAME = "branchy-alexnet-cifar10"
MIN_AGREEMENT = 0.999
_BATCH = 250
_PACKAGES = ("numpy", "onnx", "onnxruntime", "onnxscript", "torch")
Progress = Callable[[int], None]
"""Told how many inputs are done."""


@dataclass(frozen=True, slots=True)
class CheckSet:
    """Inputs [n, ...] as the exported file reads them, and their labels [n] if they are known."""

    inputs: Array
    labels: npt.NDArray[np.int64] | None
    source: str


def export_bundle(
    run: Path, output: Path, test: ImageSet, *, progress: Progress = lambda images: None
) -> BundleManifest:
    """Write the last checkpoint of `run` as a bundle into the folder `output`; see `write_bundle`.

    Raises:
        OfframpError: no checkpoint in `run`, or test images without labels.
    """
    if test.labels is None or not len(test):
        raise OfframpError("data", test.source, "must have labelled images")
    checkpoint = load_checkpoint(run)
    return write_bundle(
        output,
        DeployedNetwork(load_model(checkpoint)),
        CheckSet(test.images, test.labels, test.source),
        name=NAME,
        classes=CIFAR10_CLASSES if checkpoint.classes == len(CIFAR10_CLASSES) else None,
        training=_history(checkpoint),
        progress=progress,
    )


def export_exits(
    network: BranchedNetwork,
    output: Path,
    test: CheckSet,
    *,
    name: str,
    scale: PixelScale | None = None,
    classes: tuple[str, ...] | None = None,
    training: dict[str, Any] | None = None,
    progress: Progress = lambda inputs: None,
) -> BundleManifest:
    """Write a network made by `attach_exits` as a bundle into the folder `output`; see `write_bundle`.

    Args:
        network: on the CPU; left as it is.
        test: with `scale`, uint8 images [n, h, w, 3]; without, what the network reads.
        name, classes, training: for the manifest.
        scale: of the pixels that the network was made for; it becomes part of the graph.
    """
    if scale is not None and (test.inputs.dtype != np.uint8 or test.inputs.ndim != 4):
        shown = f"{test.inputs.dtype} {list(test.inputs.shape)}"
        raise OfframpError("test inputs", shown, "must be uint8 images [n, h, w, 3] where a scale is given")
    history = {**(training or {}), "places": list(network.places), "versions": _versions()}
    return write_bundle(
        output,
        DeployedNetwork(network, scale),
        test,
        name=name,
        classes=classes,
        training=history,
        progress=progress,
    )


def write_bundle(
    output: Path,
    network: DeployedNetwork,
    test: CheckSet,
    *,
    name: str,
    classes: tuple[str, ...] | None,
    training: dict[str, Any],
    progress: Progress,
) -> BundleManifest:
    """Export, check and write a network with several exits.

    Every exit's accuracy is that of the exported file, run as a chain of blocks as the runtime runs it.
    Its labels are compared with torch's, input by input.

    Raises:
        OfframpError: no test inputs, or the exported file agrees with torch on fewer than 99.9 % of some
            exit's labels; nothing is written then.
    """
    if not len(test.inputs):
        raise OfframpError("data", test.source, "must have inputs to check the export with")
    wanted = torch_labels(network, test.inputs)
    outputs = [f"exit{number}" for number in range(1, len(wanted) + 1)]
    graph = to_onnx(network, outputs, torch.from_numpy(test.inputs[:1]))
    content = graph.SerializeToString(deterministic=True)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / MODEL_NAME
        path.write_bytes(content)
        model = load_branchy(path, outputs)
        answers = chain_labels(ChainExecutor(model), test.inputs, progress)
    agreement = (answers == wanted).mean(axis=1)
    if agreement.min() < MIN_AGREEMENT:
        raise OfframpError(
            "export", f"{agreement.min():.4f}", f"the ONNX file must agree with torch on {MIN_AGREEMENT:.1%}"
        )
    accuracies = None if test.labels is None else (answers == test.labels).mean(axis=1)
    exits = tuple(
        ExitInfo(
            output=output_name,
            # An accuracy of nothing is taken for unknown.
            accuracy=None if accuracies is None else float(accuracies[number]) or None,
            images=None if accuracies is None else len(test.inputs),
            operations=branch.macs,
        )
        for number, (output_name, branch) in enumerate(zip(outputs, model.exits, strict=True))
    )
    manifest = BundleManifest(
        name=name,
        model=MODEL_NAME,
        input=network.input_name,
        classes=classes,
        exits=exits,
        training={**training, "torch_agreement": [round(float(share), 5) for share in agreement]},
        files={},
    )
    return save_bundle(output, manifest, {MODEL_NAME: content})


def chain_labels(executor: ChainExecutor, inputs: Array, progress: Progress) -> npt.NDArray[np.int64]:
    """Labels [exits, n] of the exported file, from its chain of blocks."""
    [entry] = executor.model.inputs
    parts = []
    for start in range(0, len(inputs), _BATCH):
        part = inputs[start : start + _BATCH]
        answers = executor.run_exits({entry.name: part})
        parts.append(np.stack([labels_of(answers[number]) for number in sorted(answers)]))
        progress(start + len(part))
    return np.concatenate(parts, axis=1)


@torch.no_grad()
def torch_labels(network: DeployedNetwork, inputs: Array) -> npt.NDArray[np.int64]:
    """Labels [exits, n] of the torch module in float32."""
    parts = [
        torch.stack(
            [logits.argmax(1) for logits in network(torch.from_numpy(inputs[start : start + _BATCH]))]
        )
        for start in range(0, len(inputs), _BATCH)
    ]
    labels: npt.NDArray[np.int64] = torch.cat(parts, dim=1).numpy()
    return labels


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}


def _history(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the manifest says of the training: enough to do it again and to see how it went."""
    return {**checkpoint.history(), "finished": checkpoint.finished, "versions": _versions()}
