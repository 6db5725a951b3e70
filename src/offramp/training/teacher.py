"""A trained network that teaches another: what it answers to views of the training images, kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from offramp.errors import OfframpError
from offramp.training.augment import View, draw_view, view_images
from offramp.training.checkpoint import Checkpoint
from offramp.training.settings import TrainingSettings
from offramp.training.state_file import read_tensors, write_tensors

BATCH = 500
Answer = Callable[[Tensor], Tensor]
"""Logits [n, classes] for normalised images [n, 3, h, w]."""


def fingerprint(checkpoint: Checkpoint) -> str:
    """Sixteen hexadecimal digits that other weights would not have."""
    digest = hashlib.sha256()
    for name, tensor in sorted(checkpoint.model.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def epoch_view(settings: TrainingSettings, count: int, epoch: int) -> View:
    """The view of `count` training images that `epoch` shows: a taught run goes through its views in turn."""
    return draw_view(count, settings.shift, settings.seed, epoch % settings.views)


def taught_answers(
    settings: TrainingSettings,
    answer: Answer,
    images: Tensor,
    epoch: int,
    folder: Path,
    progress: Callable[[float], None],
) -> Tensor:
    """The teacher's logits, float16 [n, classes], for the view of all images that `epoch` shows.

    A view is answered once and then read from `folder`, whose files are named after the teacher's
    weights. The square that training blanks is not blanked for the teacher: it knows more.

    Raises:
        OfframpError: a kept file is of other images, or cannot be read or written.
    """
    number = epoch % settings.views
    path = folder / f"answers-{settings.teacher}-{number}.safetensors"
    if path.is_file():
        kept = read_tensors(path)["answers"]
        if len(kept) != len(images):
            raise OfframpError(
                "run", str(path), f"must have {len(images)} answers, has {len(kept)}", "delete it"
            )
        return kept.to(images.device)
    view, parts = epoch_view(settings, len(images), epoch), []
    for start in range(0, len(images), BATCH):
        stop = min(start + BATCH, len(images))
        with torch.no_grad():
            parts.append(answer(view_images(images, view, start, stop, settings.shift)).half())
        progress(stop / len(images))
    answers = torch.cat(parts)
    write_tensors(path, {"answers": answers.cpu()})
    return answers
