"""An ONNX graph with what cutting needs to know: what depends on the inputs, shapes, and work.

Shapes are found by inference at two batch sizes (by a run where inference does not know an operator), so
each axis is known as fixed + per_input × size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from offramp.errors import OfframpError
from offramp.model.reading import WEIGHT_MARK, ModelSource, open_model
from offramp.model.sessions import make_session, run_session
from offramp.model.tensors import TensorSpec
from offramp.model.work import node_macs

# Two sizes tell an axis that grows with the batch from one that does not; small, since one path runs them.
_PROBE_SIZES = (2, 3)
_STANDARD_DOMAINS = frozenset({"", "ai.onnx"})
_CROSSING_DTYPES = frozenset(
    {
        "float32",
        "float16",
        "float64",
        "int8",
        "uint8",
        "int16",
        "uint16",
        "int32",
        "uint32",
        "int64",
        "uint64",
        "bool",
    }
)


class Kind(Enum):
    """What a tensor's value depends on."""

    CONSTANT = "constant"  # weights only
    BATCH = "batch"  # weights and the number of inputs: cheap to compute again on either side of a cut
    DATA = "data"  # the inputs themselves


@dataclass(frozen=True, slots=True)
class Extent:
    """A shape as a function of the number of inputs: axis i has fixed[i] + per_input[i] × size elements."""

    fixed: tuple[int, ...]
    per_input: tuple[int, ...]

    def at(self, size: int) -> tuple[int, ...]:
        """The shape for `size` inputs."""
        return tuple(f + p * size for f, p in zip(self.fixed, self.per_input, strict=True))


@dataclass(frozen=True, slots=True)
class Graph:
    """A checked ONNX graph.

    `nodes` are in an executable order; `macs[i]` counts node i's multiply-accumulates for one input.
    `dtype` and `extent` hold the tensors whose shape is known, `weight_elements` the initializers.
    """

    source: ModelSource
    opsets: tuple[tuple[str, int], ...]
    ir_version: int
    nodes: tuple[onnx.NodeProto, ...]
    producer: Mapping[str, int]
    kind: Mapping[str, Kind]
    dtype: Mapping[str, str]
    extent: Mapping[str, Extent]
    macs: tuple[int, ...]
    weight_elements: Mapping[str, int]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]

    def kind_of(self, name: str) -> Kind:
        """Kind of a tensor; initializers and absent optional inputs are constant."""
        return self.kind.get(name, Kind.CONSTANT)

    def data_inputs(self, node: int) -> tuple[str, ...]:
        """The node's inputs that depend on the model's inputs, each once, in order."""
        return tuple(
            dict.fromkeys(name for name in self.nodes[node].input if self.kind_of(name) is Kind.DATA)
        )

    def is_data(self, node: int) -> bool:
        """Whether the node computes something that depends on the model's inputs."""
        return any(self.kind_of(name) is Kind.DATA for name in self.nodes[node].output)

    def spec(self, name: str) -> TensorSpec | None:
        """How the tensor looks when it crosses a cut, or None if it cannot cross one.

        A tensor can cross if its dtype is one that numpy has, and exactly one axis is the batch axis.
        """
        extent, dtype = self.extent.get(name), self.dtype.get(name)
        if extent is None or dtype not in _CROSSING_DTYPES or dtype is None:
            return None
        batch = [axis for axis, per_input in enumerate(extent.per_input) if per_input]
        if len(batch) != 1 or extent.per_input[batch[0]] != 1 or extent.fixed[batch[0]] != 0:
            return None
        return TensorSpec(
            name, dtype, tuple(None if i == batch[0] else d for i, d in enumerate(extent.fixed))
        )


def read_graph(path: Path) -> Graph:
    """Check and analyse the ONNX file at `path`.

    Raises OfframpError for what `open_model` refuses, for an input without a free batch axis as its first
    or with another axis that is not fixed, and for an output that does not depend on the inputs.
    """
    source, skeleton = open_model(path)
    inputs = _input_specs(skeleton)
    kind = _kinds(skeleton, [spec.name for spec in inputs])
    outputs = tuple(value.name for value in skeleton.graph.output)
    producer = {name: i for i, node in enumerate(skeleton.graph.node) for name in node.output if name}
    for name in outputs:
        if kind.get(name) is not Kind.DATA or name not in producer:
            raise OfframpError(
                "output", name, "must be computed from the model's inputs", "leave it out of the exits"
            )
    shapes = [_infer_shapes(skeleton, inputs, size) for size in _PROBE_SIZES]
    unknown = [n for n, k in kind.items() if k is Kind.DATA and any(n not in found for found in shapes)]
    if unknown:
        shapes = [
            {**s, **found} for s, found in zip(shapes, _run_shapes(source, inputs, unknown), strict=True)
        ]
    extent, dtype = _extents(*shapes)
    nodes = tuple(skeleton.graph.node)
    weight_shapes = _weight_shapes(skeleton)
    at = [{**weight_shapes, **{n: e.at(size) for n, e in extent.items()}} for size in _PROBE_SIZES]
    low, high = ([node_macs(node, shapes_at) for node in nodes] for shapes_at in at)
    return Graph(
        source=source,
        opsets=tuple((o.domain, o.version) for o in skeleton.opset_import),
        ir_version=skeleton.ir_version,
        nodes=nodes,
        producer=producer,
        kind=kind,
        dtype=dtype,
        extent=extent,
        macs=tuple(max(0, h - lo) for lo, h in zip(low, high, strict=True)),
        weight_elements={name: math.prod(shape) for name, shape in weight_shapes.items()},
        inputs=inputs,
        outputs=outputs,
    )


def _data_inputs(skeleton: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    return [v for v in skeleton.graph.input if v.doc_string != WEIGHT_MARK]


def _input_specs(skeleton: onnx.ModelProto) -> tuple[TensorSpec, ...]:
    specs = []
    for value in _data_inputs(skeleton):
        tensor = value.type.tensor_type
        field = f"input {value.name}"
        dims = list(tensor.shape.dim)
        if not tensor.HasField("shape") or not dims or dims[0].HasField("dim_value"):
            shown = [d.dim_value or d.dim_param or "?" for d in dims]
            raise OfframpError(
                field,
                shown,
                "its first axis must be a free batch axis",
                "export it with a dynamic batch axis",
            )
        if not all(d.HasField("dim_value") and d.dim_value > 0 for d in dims[1:]):
            shown = [d.dim_value or d.dim_param or "?" for d in dims]
            raise OfframpError(
                field, shown, "every axis but the first must be fixed", "export it with fixed sizes"
            )
        dtype = _dtype_name(tensor.elem_type)
        if dtype not in _CROSSING_DTYPES:
            raise OfframpError(
                field, dtype, "must be a numeric type that numpy has", "cast it inside the model"
            )
        specs.append(TensorSpec(value.name, dtype, (None, *(d.dim_value for d in dims[1:]))))
    if not specs:
        raise OfframpError("model", "no inputs", "a model needs at least one input")
    return tuple(specs)


def _dtype_name(elem_type: int) -> str:
    try:
        return onnx.helper.tensor_dtype_to_np_dtype(elem_type).name
    except (KeyError, TypeError):
        return f"onnx type {elem_type}"


def _kinds(skeleton: onnx.ModelProto, inputs: Sequence[str]) -> dict[str, Kind]:
    kind = dict.fromkeys(inputs, Kind.DATA)
    for node in skeleton.graph.node:
        found = {kind.get(name, Kind.CONSTANT) for name in node.input if name}
        if node.op_type in ("Shape", "Size") and node.domain in _STANDARD_DOMAINS and Kind.DATA in found:
            found = {Kind.BATCH}
        result = next((k for k in (Kind.DATA, Kind.BATCH) if k in found), Kind.CONSTANT)
        kind.update((name, result) for name in node.output if name)
    return kind


Shapes = dict[str, tuple[str, tuple[int, ...]]]


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
            found[value.name] = (_dtype_name(tensor.elem_type), tuple(d.dim_value for d in tensor.shape.dim))
    return found


def _run_shapes(source: ModelSource, inputs: Sequence[TensorSpec], names: Sequence[str]) -> list[Shapes]:
    """Dtypes and shapes of the named tensors from a run at each probe size, for operators without inference."""
    model = source.load()
    known = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    session = make_session(model, "model", optimise=False)
    return [_shapes_of_run(session, inputs, names, size) for size in _PROBE_SIZES]


def _shapes_of_run(session: Any, inputs: Sequence[TensorSpec], names: Sequence[str], size: int) -> Shapes:
    feeds = {spec.name: np.ones(spec.shape_at(size), spec.dtype) for spec in inputs}
    arrays = run_session(session, feeds, list(names))
    return {
        name: (array.dtype.name, array.shape)
        for name, array in zip(names, arrays, strict=True)
        if isinstance(array, np.ndarray)
    }


def _extents(low: Shapes, high: Shapes) -> tuple[dict[str, Extent], dict[str, str]]:
    (size_low, size_high) = _PROBE_SIZES
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


def _weight_shapes(skeleton: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    shapes = {tensor.name: tuple(tensor.dims) for tensor in skeleton.graph.initializer}
    for value in skeleton.graph.input:
        if value.doc_string == WEIGHT_MARK:
            shapes[value.name] = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
    return shapes
