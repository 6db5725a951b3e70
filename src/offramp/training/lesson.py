"""What an epoch of training shows, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from offramp.training.augment import training_batches
from offramp.training.mixing import cut_mix
from offramp.training.settings import TrainingSettings
from offramp.training.teacher import epoch_view


@dataclass(frozen=True, slots=True)
class Lesson:
    """What an epoch learns from: uint8 images [n, h, w, 3], labels [n] of so many `classes` and, if taught,
    logits [n, classes]."""

    images: Tensor
    labels: Tensor
    classes: int
    taught: Tensor | None


@dataclass(frozen=True, slots=True)
class Step:
    """Images as shown, float [n, 3, h, w], their labels [n], what the loss takes for these, int64 [n] or
    probabilities [n, classes], and the teacher's logits [n, classes], if there is one."""

    x: Tensor
    labels: Tensor
    targets: Tensor
    taught: Tensor | None


def steps_of(lesson: Lesson, settings: TrainingSettings, epoch: int) -> Iterator[Step]:
    """The steps of an epoch, the same for the same (seed, epoch)."""
    count = len(lesson.images)
    batches = training_batches(
        lesson.images,
        torch.arange(count, device=lesson.images.device),
        settings.batch,
        settings.shift,
        settings.cutout,
        settings.seed,
        epoch,
        view=None if lesson.taught is None else epoch_view(settings, count, epoch),
    )
    rng = torch.Generator().manual_seed(settings.seed * 100_003 + epoch + 75_000)
    for x, rows in batches:
        labels = lesson.labels[rows]
        taught = None if lesson.taught is None else lesson.taught[rows].float()
        if settings.mix == 0:
            yield Step(x, labels, labels, taught)
            continue
        mixed, mixture = cut_mix(x, settings.mix, rng)
        if taught is not None:
            taught = mixture.answers(taught, settings.temperature)
        yield Step(mixed, mixture.main_labels(labels), mixture.soft_labels(labels, lesson.classes), taught)
