"""Give a trained ResNet three early exits and make a bundle of it that `offramp inspect --check` accepts.

Without arguments it takes made-up images and half a minute. `--data DIR` takes CIFAR-10 (the hub's uoft-cs/cifar10;
without DIR the folder in OFFRAMP_DATA), `--epochs` more passes.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from offramp.images import ImageSet, generate_images, load_images
from offramp.model.bundle import load_bundle
from offramp.model.executor import ChainExecutor
from offramp.model.verify import cut_errors
from offramp.training.augment import CIFAR10_PIXELS, normalise, training_batches
from offramp.training.exit_training import train_exits
from offramp.training.exits import attach_exits
from offramp.training.export import CheckSet, export_exits
from offramp.training.settings import ExitTraining


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = (
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.conv2, self.norm2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(x)))))
        return functional.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    """A stem and three stages of two blocks; knows nothing of exits."""

    def __init__(self, width: int = 16, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.stage1 = nn.Sequential(Block(width, width, 1), Block(width, width, 1))
        self.stage2 = nn.Sequential(Block(width, 2 * width, 2), Block(2 * width, 2 * width, 1))
        self.stage3 = nn.Sequential(Block(2 * width, 4 * width, 2), Block(4 * width, 4 * width, 1))
        self.classify = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage3(self.stage2(self.stage1(self.stem(x))))
        return self.classify(x.mean(dim=(2, 3)))


def made_images(count: int, seed: int) -> ImageSet:
    """Ten patterns, each under a pattern of its own in every image: an easy stand-in for photographs."""
    patterns = generate_images(10, np.random.default_rng(0)).images
    rng = np.random.default_rng([seed, 1])
    labels = rng.integers(0, 10, count)
    mixed = 0.3 * patterns[labels] + 0.7 * generate_images(count, rng).images
    return ImageSet(mixed.astype(np.uint8), labels.astype(np.int64), "made-up images")


def pretrain(images: ImageSet, epochs: int) -> ResNet:
    """Stands for whatever trained the network that you have."""
    torch.manual_seed(0)
    module = ResNet()
    optimiser = torch.optim.AdamW(module.parameters(), 2e-3)
    pixels, labels = torch.from_numpy(images.images), torch.from_numpy(images.labels)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.1, max(1, epochs - 1))
    for epoch in range(epochs):
        for x, y in training_batches(pixels, labels, 100, 2, 0, 0, epoch):
            optimiser.zero_grad()
            functional.cross_entropy(module(x), y).backward()
            optimiser.step()
        schedule.step()
    return module.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="?", const="", help="take CIFAR-10, from this folder")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    # Layers this small gain nothing from a second thread, and lose much where others want it.
    torch.set_num_threads(1)
    if options.data is None:
        train, test = made_images(1000, 1), made_images(300, 2)
    else:
        train, test = load_images(options.data or None, "train"), load_images(options.data or None, "test")

    module = pretrain(train, options.epochs)
    network = attach_exits(module, normalise(torch.from_numpy(train.images[:2])), at="auto", exits=4)
    print(f"exits after {', '.join(network.places)}")
    settings = ExitTraining(epochs=options.epochs, trunk="frozen")
    train_exits(network, train.images, train.labels, settings, scale=CIFAR10_PIXELS)

    with tempfile.TemporaryDirectory() as scratch:
        folder = options.output or Path(scratch) / "bundle"
        checked = CheckSet(test.images, test.labels, test.source)
        manifest = export_exits(network, folder, checked, name="resnet", scale=CIFAR10_PIXELS)
        for number, exit in enumerate(manifest.exits, 1):
            print(f"exit {number}: {exit.operations:>10,} operations, accuracy {exit.accuracy:.3f}")
        executor = ChainExecutor(load_bundle(folder).model)
        worst = max(error for *_, error in cut_errors(executor, np.random.default_rng(0)))
        print(f"head + tail against the whole at every cut: within {worst:.0e}")


if __name__ == "__main__":
    main()
