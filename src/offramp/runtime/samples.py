"""Inputs for a bundle's model: real images where the user has them, made-up ones where not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from offramp.errors import OfframpError
from offramp.images import CIFAR10_CLASSES, find_images, generate_images
from offramp.model.inputs import image_inputs
from offramp.runtime.workload import GENERATED, Samples, generated

if TYPE_CHECKING:
    from offramp.model.bundle import Bundle

MEMORY_BYTES = 256 * 1024 * 1024
"""Images converted to a model's input beyond this are left out."""


def samples_for(bundle: Bundle, data: Path | None, rng: np.random.Generator) -> Samples:
    """Test images for a model that takes images, else noise. Raises OfframpError if the named data are bad.

    Labels are kept only if the model's classes are those of the images.
    """
    specs = bundle.model.inputs
    found = find_images(data, "test")
    images = found or generate_images(GENERATED, rng)
    count = max(1, min(len(images), MEMORY_BYTES // max(1, sum(spec.bytes_per_input for spec in specs))))
    try:
        inputs = image_inputs(images.images[:count], specs)
    except OfframpError:
        return generated(specs, rng)
    labels = None
    if images.labels is not None and bundle.manifest.classes == CIFAR10_CLASSES:
        labels = images.labels[:count]
    return Samples(inputs, labels, images.source)
