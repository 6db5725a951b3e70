"""Shapes and types of a graph's tensors, found at two batch sizes by inference, or by a run where that fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from offramp.errors import OfframpError
from offramp.model.inputs import random_inputs
from offramp.model.reading import WEIGHT_MARK, ModelSource
from offramp.model.sessions import make_session, run_session
from offramp.model.tensors import TensorSpec, relative_error

# Two sizes tell an axis that grows with the batch from one that does not; small, since one path runs them.
_SIZES = (2, 3)
# How far the freed model may be from the file's: other sizes may take other kernels.
_FREED_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Extent:
    """A shape as a function of the number of inputs: axis i has fixed[i] + per_input[i] × size elements."""

    fixed: tuple[int, ...]
    per_input: tuple[int, ...]

    def at(self, size: int) -> tuple[int, ...]:
        """The shape for `size` inputs."""
        return tuple(f + p * size for f, p in zip(self.fixed, self.per_input, strict=True))


Shapes = dict[str, tuple[str, tuple[int, ...]]]


def dtype_name(elem_type: int) -> str:
    """The numpy name of an ONNX element type, or a name for a person if numpy has no such type."""
    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(elem_type).name)
    except (KeyError, TypeError):
        return f"onnx type {elem_type}"


def find_shapes(
    source: ModelSource, skeleton: onnx.ModelProto, inputs: Sequence[TensorSpec], data: Sequence[str]
) -> tuple[dict[str, Extent], dict[str, str]]:
    """Extent and dtype of every tensor where they are known, of the tensors `data` if at all possible.

    Raises OfframpError if inference does not know a tensor of `data` and the model does not run.
    """
    shapes = [_infer_shapes(skeleton, inputs, size) for size in _SIZES]
    unknown = [name for name in data if any(name not in found for found in shapes)]
    if unknown:
        run = _run_shapes(source, inputs, unknown)
        shapes = [{**inferred, **found} for inferred, found in zip(shapes, run, strict=True)]
    weights = dict(_weights(skeleton))
    return _extents(*({**found, **weights} for found in shapes))


def _weights(skeleton: onnx.ModelProto) -> Iterator[tuple[str, tuple[str, tuple[int, ...]]]]:
    for tensor in skeleton.graph.initializer:
        yield tensor.name, (dtype_name(tensor.data_type), tuple(tensor.dims))
    for value in skeleton.graph.input:
        if value.doc_string == WEIGHT_MARK:
            shape = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
            yield value.name, (dtype_name(value.type.tensor_type.elem_type), shape)


def check_freed(source: ModelSource, inputs: Sequence[TensorSpec], outputs: Sequence[str]) -> None:
    """Check that a model whose batch axis was freed computes for each of two inputs what the file does for one.

    Raises OfframpError if it does not, or does not run.
    """
    pair = random_inputs(inputs, 2, np.random.default_rng(0))
    singles = [{name: array[i : i + 1] for name, array in pair.items()} for i in range(2)]
    try:
        fixed, freed = (make_session(model, "model") for model in (source.load_fixed(), source.load()))
        expected = [run_session(fixed, single, list(outputs)) for single in singles]
        found = run_session(freed, pair, list(outputs))
        alike = all(
            relative_error(both, np.concatenate(each)) <= _FREED_TOLERANCE
            for both, *each in zip(found, *expected, strict=True)
        )
    except (OfframpError, ValueError):
        alike = False
    if not alike:
        raise OfframpError(
            f"input {inputs[0].name}",
            [1, *inputs[0].shape[1:]],
            "its first axis must be a free batch axis, and this graph does not allow to free it",
            "export it with a dynamic batch axis",
        )


def _infer_shapes(skeleton: onnx.ModelProto, inputs: Sequence[TensorSpec], size: int) -> Shapes:
    model = onnx.ModelProto()
    model.CopyFrom(skeleton)
    del model.graph.value_info[:]
    sized = {spec.name: spec.shape_at(size) for spec in inputs}
    for value in model.graph.input:
        if value.name in sized:
            value.type.tensor_type.shape.dim[0].dim_value = size
    # A declared output shape may name the batch axis; what inference finds is more exact.
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError):
        return {}
    found: Shapes = {}
    for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
            found[value.name] = (dtype_name(tensor.elem_type), tuple(d.dim_value for d in tensor.shape.dim))
    return found


def _run_shapes(source: ModelSource, inputs: Sequence[TensorSpec], names: Sequence[str]) -> list[Shapes]:
    """Dtypes and shapes of the named tensors from a run at each probe size, for operators without inference."""
    model = source.load()
    known = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    session = make_session(model, "model", optimise=False)
    return [_shapes_of_run(session, inputs, names, size) for size in _SIZES]


def _shapes_of_run(session: Any, inputs: Sequence[TensorSpec], names: Sequence[str], size: int) -> Shapes:
    feeds = {spec.name: np.ones(spec.shape_at(size), spec.dtype) for spec in inputs}
    arrays = run_session(session, feeds, list(names))
    return {
        name: (array.dtype.name, array.shape)
        for name, array in zip(names, arrays, strict=True)
        if isinstance(array, np.ndarray)
    }


def _extents(low: Shapes, high: Shapes) -> tuple[dict[str, Extent], dict[str, str]]:
    (size_low, size_high) = _SIZES
    extent: dict[str, Extent] = {}
    dtype: dict[str, str] = {}
    for name, (type_name, shape) in low.items():
        other = high.get(name, ("", ()))[1]
        if len(other) != len(shape) or name not in high:
            continue
        per_input = tuple((h - lo) // (size_high - size_low) for lo, h in zip(shape, other, strict=True))
        fixed = tuple(lo - p * size_low for lo, p in zip(shape, per_input, strict=True))
        extent[name], dtype[name] = Extent(fixed, per_input), type_name
    return extent, dtype
