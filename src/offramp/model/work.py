"""How much work an ONNX operator is: multiply-accumulates, counted from shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx

Shape = tuple[int, ...]

_HEAVY_OPERATORS = frozenset(
    {
        *("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "FusedConv", "DeformConv"),
        *("MatMul", "MatMulInteger", "QLinearMatMul", "FusedMatMul", "Gemm", "FusedGemm", "QGemm", "Einsum"),
        *("LSTM", "GRU", "RNN", "Attention", "MultiHeadAttention", "DFT", "STFT"),
    }
)
_STANDARD_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})


def is_light(node: onnx.NodeProto) -> bool:
    """Whether the operator costs little beside the convolutions and products around it.

    An operator of another domain is taken for a heavy one, since nothing is known of it.
    """
    return node.op_type not in _HEAVY_OPERATORS and node.domain in _STANDARD_DOMAINS


def node_macs(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> int:
    """Multiply-accumulates of one operator at the given shapes; 0 for light or unknown operators."""
    try:
        return _macs(node, shapes)
    except (KeyError, IndexError):
        return 0  # a shape is not known


def _macs(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> int:
    match node.op_type:
        case "Conv" | "FusedConv" | "ConvInteger":
            return math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
        case "QLinearConv":
            return math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[3]][1:])
        case "ConvTranspose":
            return math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])
        case "MatMul" | "MatMulInteger" | "FusedMatMul" | "QLinearMatMul":
            return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
        case "Gemm" | "FusedGemm" | "QGemm":
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if transposed else 1]
        case "LSTM" | "GRU" | "RNN":
            steps, batch = shapes[node.input[0]][:2]
            return steps * batch * sum(math.prod(shapes[name]) for name in node.input[1:3])
        case "Einsum":
            return _einsum_macs(node, shapes)
        case "Attention":
            return _attention_macs(node, shapes)
    return 0


def _einsum_macs(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> int:
    equation = next(a.s.decode() for a in node.attribute if a.name == "equation").replace(" ", "")
    size: dict[str, int] = {}
    for term, name in zip(equation.split("->")[0].split(","), node.input, strict=True):
        if "." in term:
            return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
        size.update(zip(term, shapes[name], strict=True))
    return math.prod(size.values())


def _attention_macs(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> int:
    query, key = shapes[node.input[0]], shapes[node.input[1]]
    if len(query) != len(key) or len(query) < 3:
        return 0
    return 2 * math.prod(query) * key[-2]
