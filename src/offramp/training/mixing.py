"""Images of a batch mixed with one another (CutMix, Yun et al. 2019), and what a mixed image is to be called."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Mixture:
    """Which images of a batch have a box from another: `partners`, int64 [n], is the other's place in the
    batch, `kept`, float [n] in 0..1, the share of an image's pixels that are its own."""

    partners: Tensor
    kept: Tensor

    def blend(self, own: Tensor) -> Tensor:
        """What is said of each image, float [n, m], weighted with what is said of its partner."""
        kept = self.kept[:, None]
        return kept * own + (1 - kept) * own[self.partners]

    def main_labels(self, labels: Tensor) -> Tensor:
        """The label, int64 [n], of the larger part of each image."""
        return torch.where(self.kept >= 0.5, labels, labels[self.partners])

    def soft_labels(self, labels: Tensor, classes: int) -> Tensor:
        """Probabilities [n, classes] of labels int64 [n]."""
        return self.blend(functional.one_hot(labels, classes).float())

    def answers(self, logits: Tensor, temperature: float) -> Tensor:
        """Logits [n, classes] whose softmax at `temperature` is the blend of the given ones'."""
        return self.blend((logits / temperature).softmax(1)).log() * temperature


def cut_mix(x: Tensor, share: float, rng: torch.Generator) -> tuple[Tensor, Mixture]:
    """Give about `share` of the images [n, c, h, w] a box from another of the batch, drawn from `rng`.

    The box has a uniform part of the area and a uniform centre, and ends at the image's border.
    """
    count, _, height, width = x.shape
    partners = torch.randperm(count, generator=rng)
    chosen = torch.rand(count, generator=rng) < share
    # Half of the box's side: an area that is a uniform part of the image has the root of it as its side.
    half = torch.rand(count, generator=rng).sqrt() / 2 * chosen
    inside = [_within(torch.rand(count, generator=rng) * side, half * side, side) for side in (height, width)]
    box = inside[0][:, :, None] & inside[1][:, None, :]
    kept = 1 - box.float().mean((1, 2))
    partners, box, kept = (t.to(x.device) for t in (partners, box, kept))
    return torch.where(box[:, None], x[partners], x), Mixture(partners, kept)


def _within(centres: Tensor, reach: Tensor, side: int) -> Tensor:
    """Which of `side` pixels, bool [n, side], have their middle nearer than `reach` to each centre."""
    middles = torch.arange(side) + 0.5
    return (middles - centres[:, None]).abs() < reach[:, None]
