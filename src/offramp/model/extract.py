"""The ONNX model of one block: its nodes, the weights they need, and what depends on the batch size only."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from offramp.model.blocks import Block
from offramp.model.graph import Graph
from offramp.model.kinds import Kind
from offramp.model.shapes import Extent
from offramp.model.tensors import Array


class BlockWriter:
    """Writes the ONNX models of blocks from one loaded copy of the whole model.

    Nodes that depend on weights only, or on weights and the batch size, are written into each block that
    needs them: then nothing crosses a cut but what depends on the inputs. A `Shape` of a tensor in another
    block is computed from the batch size of one of the block's own inputs.
    """

    def __init__(self, graph: Graph, whole: onnx.ModelProto) -> None:
        self._graph = graph
        self._weights = {tensor.name: tensor for tensor in whole.graph.initializer}
        self._nodes = whole.graph.node

    @property
    def initializers(self) -> Iterable[onnx.TensorProto]:
        """All the weights of the whole model."""
        return self._weights.values()

    def weights(self, block: Block) -> frozenset[str]:
        """Names of the initializers that the block needs."""
        names = (name for node in self._closure(block) for name in self._graph.nodes[node].input)
        return frozenset(name for name in names if name in self._weights)

    def array(self, name: str) -> Array:
        """The values of an initializer."""
        values: Array = numpy_helper.to_array(self._weights[name])
        return values

    def write(self, block: Block, without: Collection[str] = ()) -> onnx.ModelProto:
        """The block as a model whose inputs and outputs are the block's.

        The initializers named in `without` are declared, but their values are left out.
        """
        parts = _Parts(self._graph, block)
        for node in self._closure(block):
            parts.add(self._nodes[node])
        weights = [
            declaration(self._weights[name]) if name in without else self._weights[name]
            for name in sorted(self.weights(block))
        ]
        graph = onnx.helper.make_graph(
            parts.nodes,
            f"block{block.index}",
            [self._value(name) for name in block.inputs],
            [self._value(name) for name in block.outputs],
            [*weights, *parts.constants],
        )
        opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in self._graph.opsets]
        return onnx.helper.make_model(graph, ir_version=self._graph.ir_version, opset_imports=opsets)

    def _closure(self, block: Block) -> list[int]:
        """The block's nodes and those that only weights and batch size feed, in executable order.

        The nodes before a `Shape` of data are not needed: it is computed from the batch size.
        """
        graph = self._graph
        found = set(block.nodes)
        stack = list(block.nodes)
        while stack:
            node = stack.pop()
            if _is_shape_of_data(graph, graph.nodes[node]):
                continue
            for name in self._replicated_inputs(node):
                before = graph.producer.get(name)
                if before is not None and before not in found:
                    found.add(before)
                    stack.append(before)
        # The file's order is executable; a block's own nodes keep it too, whatever order chose the cuts.
        return sorted(found)

    def _replicated_inputs(self, node: int) -> Iterable[str]:
        names = self._graph.nodes[node].input
        if _fixed_reshape(self._graph, self._graph.nodes[node]) is not None:
            names = names[:1]
        return (name for name in names if name and self._graph.kind_of(name) is not Kind.DATA)

    def _value(self, name: str) -> onnx.ValueInfoProto:
        extent, dtype = self._graph.extent[name], self._graph.dtype[name]
        elem_type = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        shape = [
            fixed if not per_input else ("batch" if per_input == 1 and not fixed else None)
            for fixed, per_input in zip(extent.fixed, extent.per_input, strict=True)
        ]
        return onnx.helper.make_tensor_value_info(name, elem_type, shape)


def declaration(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """The initializer without its values, for a session that is given them."""
    declared = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    declared.data_location = onnx.TensorProto.EXTERNAL
    declared.external_data.add(key="location", value="given-to-the-session")
    return declared


def _is_shape_of_data(graph: Graph, node: onnx.NodeProto) -> bool:
    return node.op_type in ("Shape", "Size") and graph.kind_of(node.input[0]) is Kind.DATA


def _fixed_reshape(graph: Graph, node: onnx.NodeProto) -> tuple[int, ...] | None:
    """The target of a Reshape that computes it from the batch size, as constants with one -1."""
    if node.op_type != "Reshape" or graph.kind_of(node.input[1]) is not Kind.BATCH:
        return None
    extent = graph.extent.get(node.output[0])
    if extent is None:
        return None
    target = tuple(-1 if p else f for f, p in zip(extent.fixed, extent.per_input, strict=True))
    return target if target.count(-1) == 1 and 0 not in target else None


class _Parts:
    """Nodes and constants of a block as they are written."""

    def __init__(self, graph: Graph, block: Block) -> None:
        self._graph = graph
        self._block = block
        self._batch = ""
        self._names = itertools.count()
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, node: onnx.NodeProto) -> None:
        """Write one node, or what stands for it."""
        target = _fixed_reshape(self._graph, node)
        if target is not None:
            fixed = onnx.NodeProto()
            fixed.CopyFrom(node)
            fixed.input[1] = self._constant(target)
            self.nodes.append(fixed)
        elif _is_shape_of_data(self._graph, node):
            self._shape(node)
        else:
            self.nodes.append(node)

    def _constant(self, values: Sequence[int] | int) -> str:
        name = f"offramp:constant:{next(self._names)}"
        self.constants.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def _apply(self, operator: str, *inputs: str, output: str | None = None) -> str:
        output = output or f"offramp:value:{next(self._names)}"
        self.nodes.append(onnx.helper.make_node(operator, inputs, [output]))
        return output

    def _batch_size(self) -> str:
        """Name of a tensor of one element that holds the number of inputs."""
        if not self._batch:
            name, extent, axis = _batch_source(self._graph, self._block)
            length = self._apply("Gather", self._apply("Shape", name), self._constant([axis]))
            length = self._apply("Sub", length, self._constant([extent.fixed[axis]]))
            self._batch = self._apply("Div", length, self._constant([extent.per_input[axis]]))
        return self._batch

    def _shape(self, node: onnx.NodeProto) -> None:
        extent = self._graph.extent[node.input[0]]
        output = node.output[0]
        if node.op_type == "Size":
            shape = self._affine(extent.per_input, extent.fixed)
            axes = onnx.helper.make_node("ReduceProd", [shape], [output], keepdims=0)
            self.nodes.append(axes)
            return
        ends = {a.name: a.i for a in node.attribute if a.name in ("start", "end")}
        part = slice(ends.get("start"), ends.get("end"))
        self._affine(extent.per_input[part], extent.fixed[part], output)

    def _affine(self, slope: Sequence[int], offset: Sequence[int], output: str | None = None) -> str:
        grown = self._apply("Mul", self._batch_size(), self._constant(slope))
        return self._apply("Add", grown, self._constant(offset), output=output)


def _batch_source(graph: Graph, block: Block) -> tuple[str, Extent, int]:
    for name in block.inputs:
        extent = graph.extent.get(name)
        for axis, per_input in enumerate(extent.per_input if extent is not None else ()):
            if extent is not None and per_input:
                return name, extent, axis
    raise AssertionError(f"block {block.index} has no input with a batch axis")
