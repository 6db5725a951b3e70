"""Tensors as they travel: raw bytes with their declared type and shape, held against the model before they are used."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any

import numpy as np
from msgspec import Meta, Struct

from offramp.model.tensors import Array, TensorSpec

FRAME_OVERHEAD_BYTES = 4096
"""More than everything in a frame beside the tensors' own bytes."""


class ProtocolError(Exception):
    """Bytes that are no message of this protocol, or a message out of turn."""


class WireTensor(Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A tensor as it crosses: numpy's dtype name, its shape, its elements in C order, little-endian."""

    name: Annotated[str, Meta(max_length=256)]
    dtype: Annotated[str, Meta(max_length=16)]
    shape: Annotated[tuple[Annotated[int, Meta(ge=0, le=2**40)], ...], Meta(max_length=8)]
    data: memoryview


def wire_of(name: str, array: Array) -> WireTensor:
    """An array as it crosses. Copies only what is not contiguous."""
    flat = np.ascontiguousarray(array)
    if sys.byteorder == "big":
        flat = flat.astype(flat.dtype.newbyteorder("<"))
    return WireTensor(name, _name_of(array.dtype), array.shape, flat.reshape(-1).view(np.uint8).data)


def wires_of(tensors: Mapping[str, Array]) -> tuple[WireTensor, ...]:
    """Arrays as they cross, by name."""
    return tuple(wire_of(name, array) for name, array in tensors.items())


def arrays_of(wires: Sequence[WireTensor], specs: Sequence[TensorSpec], size: int) -> dict[str, Array]:
    """Arrays on the frame's own memory, if they are exactly what `specs` declares for `size` inputs.

    Raises ProtocolError naming the tensor. Non-finite numbers are refused as well: one would spoil an answer
    without a sign.
    """
    if len(wires) != len(specs) or {wire.name for wire in wires} != {spec.name for spec in specs}:
        raise ProtocolError(f"tensors {sorted(w.name for w in wires)}: must be {[s.name for s in specs]}")
    by_name = {wire.name: wire for wire in wires}
    return {spec.name: array_of(by_name[spec.name], spec, size) for spec in specs}


def array_of(wire: WireTensor, spec: TensorSpec, size: int) -> Array:
    """One array on the frame's own memory. Raises ProtocolError as `arrays_of` does."""
    shape = spec.shape_at(size)
    if wire.dtype != spec.dtype or wire.shape != shape:
        raise ProtocolError(f"{wire.name} is {wire.dtype} {wire.shape}: must be {spec.dtype} {shape}")
    dtype = _on_the_wire(spec.dtype)
    if wire.data.nbytes != math.prod(shape) * dtype.itemsize:
        raise ProtocolError(f"{wire.name} has {wire.data.nbytes} bytes: must be {math.prod(shape)} elements")
    array: Array = np.frombuffer(wire.data, dtype=dtype).reshape(shape)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ProtocolError(f"{wire.name} holds NaN or infinity: must be finite")
    return array if sys.byteorder == "little" else array.astype(dtype.newbyteorder("="))


@cache
def _name_of(dtype: np.dtype[Any]) -> str:
    return dtype.name


@cache
def _on_the_wire(dtype: str) -> np.dtype[Any]:
    return np.dtype(dtype).newbyteorder("<")


def largest_frame(specs: Sequence[Sequence[TensorSpec]], size: int) -> int:
    """Bytes that a frame with any one of these sets of tensors may take at most, for `size` inputs."""
    largest = max((sum(spec.bytes_per_input for spec in cut) for cut in specs), default=0)
    return size * largest + FRAME_OVERHEAD_BYTES
