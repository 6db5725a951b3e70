"""A wider and deeper network than the one that ships: accurate after few epochs, and too slow for a device."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

PATCH = 2
LEAST_VARIANCE = 5e-4
"""Added to the variance of each principal component, so that those of noise are not blown up."""


def _conv(inputs: int, outputs: int, pool: int = 1) -> list[nn.Module]:
    """A 3×3 convolution that begins as a copy of its input beside random filters; pooling comes before norm and
    activation, where it leaves them less to do."""
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.dirac_(convolution.weight.data[: min(inputs, outputs)])
    pooling: list[nn.Module] = [nn.MaxPool2d(pool)] if pool > 1 else []
    return [convolution, *pooling, nn.BatchNorm2d(outputs), nn.GELU()]


class WideNetwork(nn.Module):
    """Seven convolutions and one linear layer, one exit: the teacher of the exits that ship.

    The first convolution's filters are the principal components of the images' patches, whitened, with both signs
    (as in the CIFAR-10 speed runs of Jordan, 2024): see `whiten`; only its bias is learned.
    """

    def __init__(self, classes: int = 10, widths: tuple[int, int, int] = (64, 192, 256)) -> None:
        super().__init__()
        inputs = 2 * 3 * PATCH**2
        self.first = nn.Conv2d(3, inputs, PATCH)
        self.first.weight.requires_grad = False
        layers: list[nn.Module] = [nn.GELU()]
        for outputs in widths:
            layers += _conv(inputs, outputs, pool=2) + _conv(outputs, outputs)
            inputs = outputs
        self.features = nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten())
        self.out = nn.Linear(inputs, classes)

    @torch.no_grad()
    def whiten(self, images: Tensor) -> None:
        """Set the first filters from normalised images, float [n, 3, h, w]."""
        patches = functional.unfold(images, PATCH).transpose(1, 2).flatten(0, 1)
        values, vectors = torch.linalg.eigh(patches.T.double() @ patches.double() / len(patches))
        filters = (vectors / (values + LEAST_VARIANCE).sqrt()).T.flip(0).reshape(-1, 3, PATCH, PATCH)
        self.first.weight.copy_(torch.cat([filters, -filters]))
        nn.init.zeros_(self.first.bias)  # type: ignore[arg-type]  # it has one

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Logits [n, classes] for normalised images, float [n, 3, 32, 32]."""
        return (self.out(self.features(self.first(images))),)
