"""Accuracy of every exit over labelled images, each shared block run once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from offramp.errors import OfframpError
from offramp.model.executor import ChainExecutor
from offramp.model.inputs import image_inputs
from offramp.model.tensors import Array

MOST_IMAGES = 100
# A batch's largest tensors should stay near the processor, and within a small machine's memory.
MOST_BYTES = 32 << 20


def labels_of(logits: Array) -> NDArray[np.int64]:
    """The class with the largest logit for each input. Raises OfframpError unless logits are (n, classes)."""
    if logits.ndim != 2:
        raise OfframpError("output shape", logits.shape, "must be (n, classes)", "give exits that classify")
    classes: NDArray[np.int64] = np.argmax(logits, axis=1).astype(np.int64)
    return classes


def count_right(
    executor: ChainExecutor, images: NDArray[np.uint8], labels: NDArray[np.int64]
) -> Iterator[tuple[int, dict[int, int]]]:
    """After each batch: images done, and how many of them each exit has classified right."""
    largest = max(count for exit in executor.model.exits for count in exit.cut_bytes)
    batch = min(MOST_IMAGES, max(1, MOST_BYTES // largest))
    right = dict.fromkeys(executor.exits, 0)
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        answers = executor.run_exits(image_inputs(part, executor.model.inputs))
        for number, logits in answers.items():
            right[number] += int(np.sum(labels_of(logits) == labels[start : start + batch]))
        yield start + len(part), dict(right)
