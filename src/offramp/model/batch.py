"""Frees the batch axis of a model that was exported for one input at a time."""

from __future__ import annotations

import onnx
from onnx import numpy_helper

from offramp.model.kinds import Kind, tensor_kinds

BATCH_AXIS = "batch"


def free_batch(proto: onnx.ModelProto) -> bool:
    """Free the batch axis in place; False, and nothing changed, unless every input's first axis is fixed at 1.

    A Reshape of data to a constant shape that starts with the fixed 1 keeps its input's first axis instead.
    Whether the result still computes the same for each input has to be tried: see `graph.read_graph`.
    """
    graph = proto.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    firsts = [value.type.tensor_type.shape.dim[:1] for value in inputs]
    if not inputs or not all(len(dims) == 1 and dims[0].dim_value == 1 for dims in firsts):
        return False
    for value in (*inputs, *graph.output):
        for dim in value.type.tensor_type.shape.dim[:1]:
            dim.dim_param = BATCH_AXIS
    del graph.value_info[:]
    kind = tensor_kinds(graph.node, [value.name for value in inputs])
    written = (n for n in graph.node if n.op_type == "Constant")
    constants = {n.output[0]: a.t for n in written for a in n.attribute if a.name == "value"}
    for node in graph.node:
        if node.op_type != "Reshape" or kind.get(node.input[0]) is not Kind.DATA:
            continue
        target = weights.get(node.input[1], constants.get(node.input[1]))
        if target is None or any(a.name == "allowzero" and a.i for a in node.attribute):
            continue
        shape = numpy_helper.to_array(target).copy()
        if len(shape) and shape[0] == 1:
            shape[0] = 0  # in a Reshape: as in the input
            name = f"{node.input[1]}:offramp:{node.output[0]}"
            graph.initializer.append(numpy_helper.from_array(shape, name))
            node.input[1] = name
    return True
