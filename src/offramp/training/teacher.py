"""A trained network that teaches another: what it answers to views of the training images, kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from offramp.errors import OfframpError
from offramp.training.augment import View, draw_view, view_images
from offramp.training.checkpoint import Checkpoint
from offramp.training.modules import load_module
from offramp.training.networks import load_model
from offramp.training.settings import TrainingSettings
from offramp.training.state_file import read_tensors, weights_fingerprint, write_tensors

BATCH = 500
Answer = Callable[[Tensor], Tensor]
"""Logits [n, classes] for normalised images [n, 3, h, w]."""


@dataclass(frozen=True, slots=True)
class Teacher:
    """A trained network, on the CPU and ready to answer, and what a manifest says of how it was made.

    `model` gives logits [n, classes] for normalised images [n, 3, h, w], or a tuple of such whose last counts.
    """

    model: nn.Module
    made: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that other weights would not have."""
        return weights_fingerprint(self.model.state_dict())

    def answer(self, x: Tensor) -> Tensor:
        """Logits [n, classes] of the network, of its last exit where it has several."""
        answers = self.model(x)
        logits: Tensor = answers if isinstance(answers, Tensor) else answers[-1]
        return logits


def taught_by_run(checkpoint: Checkpoint) -> Teacher:
    """The network of a finished run as a teacher. Raises OfframpError if the tensors are not its own."""
    return Teacher(load_model(checkpoint), checkpoint.history())


def taught_by_module(reference: str, weights: Path | None = None) -> Teacher:
    """A user's own torch module as a teacher; see `modules.load_module`, whose errors it raises."""
    module = load_module(reference, weights).eval()
    # The file's name, not where it lies here: a manifest is read elsewhere.
    source, _, name = reference.rpartition(":")
    shown = Path(source).name if source.endswith(".py") else source
    made = {"module": f"{shown}:{name}"}
    return Teacher(module, made if weights is None else {**made, "weights": weights.name})


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
