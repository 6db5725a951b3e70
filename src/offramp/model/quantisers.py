"""How one tensor becomes bytes of a known number, and back: unchanged, as halves, or as bytes on an affine scale."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from offramp.equations import FloatArray
from offramp.errors import OfframpError
from offramp.model.tensors import Array, TensorSpec

_HALF_MAX = float(np.finfo(np.float16).max)
_SINGLE_MAX = float(np.finfo(np.float32).max)
_STEPS = 255
_PARAMETERS = np.dtype([("low", "<f4"), ("step", "<f4")])


class Quantiser(Protocol):
    """Packs a tensor into `packed_bytes` bytes, which depend on its declared type and shape alone."""

    def changes(self, spec: TensorSpec) -> bool:
        """Whether such a tensor is packed into fewer bytes than it has."""
        ...

    def packed_bytes(self, spec: TensorSpec, size: int) -> int:
        """Bytes that such a tensor of `size` >= 1 inputs is packed into."""
        ...

    def pack(self, array: Array, spec: TensorSpec) -> bytes:
        """The bytes of an array that is what `spec` declares. OfframpError for NaN and infinities."""
        ...

    def unpack(self, packed: memoryview, spec: TensorSpec, size: int) -> Array:
        """The array from `packed_bytes` bytes. OfframpError if they stand for NaN or infinities."""
        ...


class Unchanged:
    """Elements in C order, little-endian."""

    def changes(self, spec: TensorSpec) -> bool:
        """See `Quantiser`."""
        return False

    def packed_bytes(self, spec: TensorSpec, size: int) -> int:
        """See `Quantiser`."""
        return size * spec.bytes_per_input

    def pack(self, array: Array, spec: TensorSpec) -> bytes:
        """See `Quantiser`."""
        _check_finite(array, spec)
        return np.ascontiguousarray(array, dtype=_little(spec)).tobytes()

    def unpack(self, packed: memoryview, spec: TensorSpec, size: int) -> Array:
        """See `Quantiser`."""
        array = np.frombuffer(packed, dtype=_little(spec)).reshape(spec.shape_at(size))
        _check_finite(array, spec)
        return array.astype(spec.dtype, copy=False)


class Halves:
    """IEEE half precision; what is beyond its range becomes its largest number."""

    def changes(self, spec: TensorSpec) -> bool:
        """Floats of more than 16 bits."""
        return _is_float(spec) and np.dtype(spec.dtype).itemsize > 2

    def packed_bytes(self, spec: TensorSpec, size: int) -> int:
        """See `Quantiser`."""
        return size * spec.elements_per_input * 2

    def pack(self, array: Array, spec: TensorSpec) -> bytes:
        """See `Quantiser`."""
        _check_finite(array, spec)
        return np.clip(array, -_HALF_MAX, _HALF_MAX).astype("<f2").tobytes()

    def unpack(self, packed: memoryview, spec: TensorSpec, size: int) -> Array:
        """See `Quantiser`."""
        array = np.frombuffer(packed, dtype="<f2").reshape(spec.shape_at(size))
        _check_finite(array, spec)
        return array.astype(spec.dtype)


class AffineBytes:
    """Each element as one of 256 steps between the least and the greatest of its group.

    A group is one input, so that an input's numbers do not depend on its neighbours in the task. It is one
    channel of all inputs with `by_channel`: finer where channels differ in range, and few parameters for many
    inputs. The channels of (n, c, h, w) and deeper are the axis after the batch, of (n, t, c) the last; tensors
    of fewer axes have none.
    """

    def __init__(self, *, by_channel: bool = False) -> None:
        self._by_channel = by_channel

    def changes(self, spec: TensorSpec) -> bool:
        """Floats; with `by_channel`, if they have channels of more than one element."""
        if not self._by_channel:
            return _is_float(spec)
        axis = _channel_axis(spec)
        return _is_float(spec) and axis is not None and spec.elements_per_input > (spec.shape[axis] or 0)

    def packed_bytes(self, spec: TensorSpec, size: int) -> int:
        """Parameters of each group, then a byte an element."""
        return self._groups(spec, size) * _PARAMETERS.itemsize + size * spec.elements_per_input

    def pack(self, array: Array, spec: TensorSpec) -> bytes:
        """See `Quantiser`. An element is at most half a step of its group off, and a group of equals exact."""
        rows = self._rows(array, spec)
        low, high = (edge(axis=1).astype(np.float64) for edge in (rows.min, rows.max))
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise _not_finite(spec)
        low, high = np.clip(low, -_SINGLE_MAX, _SINGLE_MAX), np.clip(high, -_SINGLE_MAX, _SINGLE_MAX)
        parameters = np.empty(len(rows), dtype=_PARAMETERS)
        parameters["low"] = low
        parameters["step"] = (high - parameters["low"].astype(np.float64)).clip(0) / _STEPS
        wide = _arithmetic(spec, low, high)
        low = parameters["low"].astype(wide)
        step = np.where(parameters["step"] > 0, parameters["step"], 1).astype(wide)[:, None]
        scaled = np.subtract(rows, low[:, None], dtype=wide)
        np.divide(scaled, step, out=scaled)
        np.rint(scaled, out=scaled)
        np.clip(scaled, 0, _STEPS, out=scaled)
        steps = scaled.astype(np.uint8)
        return b"".join((parameters.tobytes(), steps.tobytes()))

    def unpack(self, packed: memoryview, spec: TensorSpec, size: int) -> Array:
        """See `Quantiser`."""
        groups = self._groups(spec, size)
        parameters = np.frombuffer(packed, dtype=_PARAMETERS, count=groups)
        low, step = (parameters[name].astype(np.float64) for name in ("low", "step"))
        if not _is_scale(low, step):
            raise OfframpError(
                f"scale of {spec.name}", "NaN, infinite or negative", "must be finite, with steps >= 0"
            )
        steps = np.frombuffer(packed, dtype=np.uint8, offset=groups * _PARAMETERS.itemsize)
        wide = _arithmetic(spec, low, low + _STEPS * step)
        rows: Array = steps.reshape(groups, -1).astype(wide)
        rows *= step.astype(wide)[:, None]
        rows += low.astype(wide)[:, None]
        if wide.itemsize > 4 or spec.dtype == "float16":
            most = np.finfo(spec.dtype).max
            np.clip(rows, -most, most, out=rows)
        return self._array(rows.astype(spec.dtype, copy=False), spec, size)

    def _groups(self, spec: TensorSpec, size: int) -> int:
        axis = _channel_axis(spec)
        return size if not self._by_channel or axis is None else spec.shape[axis] or size

    def _grouped_axis(self, spec: TensorSpec) -> int:
        axis = _channel_axis(spec) if self._by_channel else None
        return spec.batch_axis if axis is None else axis

    def _rows(self, array: Array, spec: TensorSpec) -> Array:
        axis = self._grouped_axis(spec)
        return np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)

    def _array(self, rows: Array, spec: TensorSpec, size: int) -> Array:
        axis, shape = self._grouped_axis(spec), spec.shape_at(size)
        moved = (shape[axis], *shape[:axis], *shape[axis + 1 :])
        return np.ascontiguousarray(np.moveaxis(rows.reshape(moved), 0, axis))


def _channel_axis(spec: TensorSpec) -> int | None:
    """Where a tensor's channels are, if it has any."""
    others = [axis for axis in range(len(spec.shape)) if axis != spec.batch_axis]
    if len(others) < 2:
        return None
    return others[0] if len(others) > 2 else others[-1]


def _is_float(spec: TensorSpec) -> bool:
    return np.dtype(spec.dtype).kind == "f"


def _is_scale(low: FloatArray, step: FloatArray) -> bool:
    # Two roundings to single precision lie between an encoder's largest number and this one.
    top = low + _STEPS * step
    return bool(np.isfinite(low).all() and (step >= 0).all() and (top <= _SINGLE_MAX * (1 + 1e-6)).all())


def _arithmetic(spec: TensorSpec, low: FloatArray, high: FloatArray) -> np.dtype[np.generic]:
    """Single precision, unless the tensor has more or a difference of its numbers could overflow."""
    greatest = max(float(np.abs(low).max()), float(np.abs(high).max()))
    single = spec.dtype != "float64" and greatest < _SINGLE_MAX / 4
    return np.dtype(np.float32 if single else np.float64)


def _little(spec: TensorSpec) -> np.dtype[np.generic]:
    return np.dtype(spec.dtype).newbyteorder("<")


def _check_finite(array: Array, spec: TensorSpec) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise _not_finite(spec)


def _not_finite(spec: TensorSpec) -> OfframpError:
    return OfframpError(f"values of {spec.name}", "NaN or infinite", "must be finite", "mend the model")
