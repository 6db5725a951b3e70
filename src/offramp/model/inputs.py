"""Arrays for a model's inputs: from images, or drawn at random."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from offramp.errors import OfframpError
from offramp.model.tensors import Array, TensorSpec

_CHANNELS = (1, 3)


def random_inputs(specs: Sequence[TensorSpec], size: int, rng: np.random.Generator) -> dict[str, Array]:
    """Inputs of the right types and shapes; integers wider than a byte are 0 or 1, in case they are indices."""
    inputs: dict[str, Array] = {}
    for spec in specs:
        dtype, shape = np.dtype(spec.dtype), spec.shape_at(size)
        if dtype.kind == "f":
            inputs[spec.name] = rng.standard_normal(shape).astype(dtype)
        else:
            high = 256 if dtype == np.uint8 else 128 if dtype == np.int8 else 2
            inputs[spec.name] = rng.integers(0, high, shape).astype(dtype)
    return inputs


def image_inputs(images: NDArray[np.uint8], specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """The model's inputs for images, uint8 (n, height, width, 3); every input gets the same ones.

    An input may be laid out (n, height, width, channels) or (n, channels, height, width), with 1 or 3
    channels and any height and width (nearest pixels are taken); floats are 0..1, integers 0..255. Raises
    OfframpError for an input that is not an image.
    """
    return {spec.name: _as_input(images, spec) for spec in specs}


def _as_input(images: NDArray[np.uint8], spec: TensorSpec) -> Array:
    dtype = np.dtype(spec.dtype)
    fixed = [d for d in spec.shape[1:] if d is not None]
    first = len(fixed) == 3 and fixed[0] in _CHANNELS
    last = len(fixed) == 3 and fixed[2] in _CHANNELS
    if not (first or last) or dtype in (np.dtype(np.int8), np.dtype(np.bool_)):
        raise OfframpError(
            f"input {spec.name}",
            f"{spec.dtype} {fixed}",
            "must be an image of 1 or 3 channels to be fed with images",
            "give a model whose inputs are images",
        )
    height, width, channels = fixed if last else (fixed[1], fixed[2], fixed[0])
    rows = np.arange(height) * images.shape[1] // height
    columns = np.arange(width) * images.shape[2] // width
    array: Array = images[:, rows][:, :, columns] if images.shape[1:3] != (height, width) else images
    if channels == 1:
        array = np.rint(array.mean(axis=3, keepdims=True)).astype(np.uint8)
    if not last:
        array = array.transpose(0, 3, 1, 2)
    array = array.astype(dtype)
    return np.ascontiguousarray(array / dtype.type(255) if dtype.kind == "f" else array)
