"""Batches of training images: normalised, flipped and shifted, the same for the same seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

# Mean and standard deviation of CIFAR-10's training pixels, on the scale 0..255, for each channel.
PIXEL_MEAN = (125.31, 122.95, 113.87)
PIXEL_STD = (62.99, 62.09, 66.70)


@dataclass(frozen=True, slots=True)
class PixelScale:
    """Mean and standard deviation of pixels that a network was made for, on the scale 0..255, by channel."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


CIFAR10_PIXELS = PixelScale(PIXEL_MEAN, PIXEL_STD)


def normalise(images: Tensor, scale: PixelScale = CIFAR10_PIXELS) -> Tensor:
    """uint8 [n, h, w, 3] to float [n, 3, h, w] (channels last in memory), about zero mean, unit spread."""
    mean = torch.tensor(scale.mean, device=images.device)
    std = torch.tensor(scale.std, device=images.device)
    return ((images.float() - mean) / std).permute(0, 3, 1, 2)


@dataclass(frozen=True, slots=True)
class View:
    """Where each image is cropped, int64 [2, n] in 0..2·shift, and whether it is mirrored, bool [n]."""

    offsets: Tensor
    mirrored: Tensor


def draw_view(count: int, shift: int, seed: int, number: int) -> View:
    """View `number` of `count` images, drawn from (seed, number); odd ones mirror what even ones do not."""
    rng = torch.Generator().manual_seed(seed * 100_003 + number + 50_000)
    return View(torch.randint(0, 2 * shift + 1, (2, count), generator=rng), _mirrored(count, seed, number))


def view_images(
    images: Tensor, view: View, start: int, stop: int, shift: int, scale: PixelScale = CIFAR10_PIXELS
) -> Tensor:
    """Images `start` to `stop` as `view` shows them, normalised, float [stop - start, 3, h, w]."""
    offsets, mirrored = (
        t.to(images.device) for t in (view.offsets[:, start:stop], view.mirrored[start:stop])
    )
    return _shift(normalise(images[start:stop], scale), offsets, mirrored, shift)


def _mirrored(count: int, seed: int, epoch: int) -> Tensor:
    mirrored = torch.rand(count, generator=torch.Generator().manual_seed(seed)) < 0.5
    return ~mirrored if epoch % 2 else mirrored


def training_batches(
    images: Tensor,
    labels: Tensor,
    batch: int,
    shift: int,
    cutout: int,
    seed: int,
    epoch: int,
    scale: PixelScale = CIFAR10_PIXELS,
    view: View | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Every image once in a random order, in batches of `batch`; an incomplete last batch is left out
    unless it is the only one.

    Each image is shifted by up to `shift` pixels (reflected at the border) and loses a square of
    `cutout` pixels. It is mirrored in every second epoch, which spreads the two views more evenly than
    a coin for each epoch. All draws come from (seed, epoch), so an epoch can be repeated on its own. With
    a `view`, shifts and mirrors are the view's.
    """
    count, device = len(images), images.device
    mirrored = _mirrored(count, seed, epoch) if view is None else view.mirrored
    rng = torch.Generator().manual_seed(seed * 100_003 + epoch + 1)
    order = torch.randperm(count, generator=rng)
    batch = min(batch, count)
    for start in range(0, count - batch + 1, batch):
        rows = order[start : start + batch]
        flip = mirrored[rows]
        offsets = torch.randint(0, 2 * shift + 1, (2, batch), generator=rng)
        if view is not None:
            offsets = view.offsets[:, rows]
        holes = torch.randint(0, images.shape[1], (2, batch), generator=rng)
        rows, flip, offsets, holes = (t.to(device) for t in (rows, flip, offsets, holes))
        x = _shift(normalise(images[rows], scale), offsets, flip, shift)
        yield _cut_out(x, holes, cutout), labels[rows]


def _shift(x: Tensor, offsets: Tensor, flip: Tensor, shift: int) -> Tensor:
    """Crop each padded image at its offset, reading columns backwards where `flip` is set."""
    count, _, height, width = x.shape
    padded = functional.pad(x, (shift,) * 4, mode="reflect").permute(0, 2, 3, 1)
    rows = torch.arange(height, device=x.device) + offsets[0][:, None]
    across = torch.arange(width, device=x.device)
    columns = torch.where(flip[:, None], across.flip(0), across) + offsets[1][:, None]
    image = torch.arange(count, device=x.device)[:, None, None]
    return padded[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _cut_out(x: Tensor, centres: Tensor, side: int) -> Tensor:
    """Set a square of `side` pixels around each centre to the mean colour."""
    if side == 0:
        return x
    place = torch.arange(x.shape[2], device=x.device) + side // 2
    rows, columns = ((place - c[:, None] >= 0) & (place - c[:, None] < side) for c in centres)
    return x.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)
