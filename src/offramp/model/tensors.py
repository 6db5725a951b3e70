"""What a tensor that crosses a cut looks like, and whether an array is one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp.errors import OfframpError

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A named tensor: numpy dtype name, and shape with None for the batch axis (exactly one)."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    @property
    def batch_axis(self) -> int:
        """The axis that counts inputs."""
        return self.shape.index(None)

    @property
    def elements_per_input(self) -> int:
        """Elements that one input takes."""
        return math.prod(d for d in self.shape if d is not None)

    @property
    def bytes_per_input(self) -> int:
        """Uncompressed bytes that one input takes."""
        return self.elements_per_input * np.dtype(self.dtype).itemsize

    def shape_at(self, size: int) -> tuple[int, ...]:
        """The shape for `size` inputs."""
        return tuple(size if d is None else d for d in self.shape)


def bytes_per_input(specs: Sequence[TensorSpec]) -> int:
    """Uncompressed bytes that one input takes in all the tensors of a cut."""
    return sum(spec.bytes_per_input for spec in specs)


def check_tensors(tensors: Mapping[str, Array], specs: Sequence[TensorSpec]) -> int:
    """Number of inputs in `tensors` if they are exactly what `specs` declares.

    Raises OfframpError if a tensor is missing or unknown, has another dtype or shape, holds no input, or
    if tensors disagree about the number of inputs.
    """
    names = [spec.name for spec in specs]
    if tensors.keys() != set(names):
        raise OfframpError(
            "tensors", sorted(tensors), f"must be exactly {sorted(names)}", "check the exit and cut"
        )
    size: int | None = None
    for spec in specs:
        array = tensors[spec.name]
        if array.dtype != np.dtype(spec.dtype):
            raise OfframpError(
                f"dtype of {spec.name}", str(array.dtype), f"must be {spec.dtype}", "convert it"
            )
        if array.ndim != len(spec.shape):
            _refuse_shape(spec, array)
        found = array.shape[spec.batch_axis]
        if found < 1 or array.shape != spec.shape_at(found):
            _refuse_shape(spec, array)
        if size is not None and found != size:
            raise OfframpError(
                f"inputs in {spec.name}", found, f"must be {size} as in {names[0]}", "split alike"
            )
        size = found
    if size is None:
        raise OfframpError("tensors", [], "must not be empty")
    return size


def _refuse_shape(spec: TensorSpec, array: Array) -> None:
    shape = "(" + ", ".join("n ≥ 1" if d is None else str(d) for d in spec.shape) + ")"
    raise OfframpError(f"shape of {spec.name}", array.shape, f"must be {shape}", "reshape it")


def relative_error(found: Array, expected: Array) -> float:
    """Largest absolute difference over the largest absolute value; infinity for other shapes or odd NaNs."""
    if found.shape != expected.shape:
        return float("inf")
    if np.array_equal(found, expected, equal_nan=expected.dtype.kind == "f"):
        return 0.0
    difference = float(np.max(np.abs(found.astype(np.float64) - expected.astype(np.float64))))
    scale = float(np.max(np.abs(expected.astype(np.float64))))
    return difference / scale if np.isfinite(difference) and scale > 0 else float("inf")
