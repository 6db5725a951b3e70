"""An ONNX graph with what cutting needs to know: what depends on the inputs, shapes, and work."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from offramp.errors import OfframpError
from offramp.model.kinds import Kind, tensor_kinds
from offramp.model.reading import WEIGHT_MARK, ModelSource, open_model
from offramp.model.shapes import Extent, check_freed, dtype_name, find_shapes
from offramp.model.tensors import TensorSpec
from offramp.model.work import node_macs

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


@dataclass(frozen=True, slots=True)
class Graph:
    """A checked ONNX graph.

    `nodes` are in an executable order; `macs[i]` counts node i's multiply-accumulates for one input.
    `dtype` and `extent` hold the tensors whose shape is known, weights among them.
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

    def weight_elements(self, node: int) -> int:
        """Elements of the constants that the node reads."""
        names = (n for n in self.nodes[node].input if n and self.kind_of(n) is Kind.CONSTANT)
        extents = (self.extent.get(name) for name in names)
        return sum(math.prod(extent.at(1)) for extent in extents if extent is not None)

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
    kind = tensor_kinds(skeleton.graph.node, [spec.name for spec in inputs])
    outputs = tuple(value.name for value in skeleton.graph.output)
    producer = {name: i for i, node in enumerate(skeleton.graph.node) for name in node.output if name}
    for name in outputs:
        if kind.get(name) is not Kind.DATA or name not in producer:
            raise OfframpError(
                "output", name, "must be computed from the model's inputs", "leave it out of the exits"
            )
    if source.freed:
        check_freed(source, inputs, outputs)
    extent, dtype = find_shapes(source, skeleton, inputs, [n for n, k in kind.items() if k is Kind.DATA])
    nodes = tuple(skeleton.graph.node)
    # Two sizes, so that what does not grow with the batch does not count as work for an input.
    one, two = ({name: e.at(size) for name, e in extent.items()} for size in (1, 2))
    macs = (node_macs(node, two) - node_macs(node, one) for node in nodes)
    return Graph(
        source=source,
        opsets=tuple((o.domain, o.version) for o in skeleton.opset_import),
        ir_version=skeleton.ir_version,
        nodes=nodes,
        producer=producer,
        kind=kind,
        dtype=dtype,
        extent=extent,
        macs=tuple(max(0, count) for count in macs),
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
        dtype = dtype_name(tensor.elem_type)
        if dtype not in _CROSSING_DTYPES:
            raise OfframpError(
                field, dtype, "must be a numeric type that numpy has", "cast it inside the model"
            )
        specs.append(TensorSpec(value.name, dtype, (None, *(d.dim_value for d in dims[1:]))))
    if not specs:
        raise OfframpError("model", "no inputs", "a model needs at least one input")
    return tuple(specs)
