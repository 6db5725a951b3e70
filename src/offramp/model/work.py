"""How much work an ONNX operator is: multiply-accumulates, counted from shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx

Shape = tuple[int, ...]

# Operators that cost little beside the one they follow. An unknown operator is taken for a heavy one: a cut
# beside it is then possible, which costs nothing if it is not used.
LIGHT_OPERATORS = frozenset(
    """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization BitShift BitwiseAnd
    BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil Celu Clip Concat Constant ConstantOfShape Cos Cosh CumSum
    DepthToSpace DequantizeLinear Div Dropout DynamicQuantizeLinear Elu Equal Erf Exp Expand EyeLike Flatten Floor
    FusedGelu Gather GatherElements GatherND Gelu GlobalAveragePool GlobalLpPool GlobalMaxPool Greater
    GreaterOrEqual GroupNormalization HardSigmoid HardSwish Hardmax Identity InstanceNormalization IsInf IsNaN LRN
    LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization LpPool Max MaxPool Mean
    MeanVarianceNormalization Min Mish Mod Mul Neg Not OneHot Or PRelu Pad Pow QuantizeLinear Range Reciprocal
    ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare Relu Reshape RMSNormalization Round ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign
    Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu
    Tile TopK Transpose Trilu Unsqueeze Where Xor QuickGelu BiasGelu FastGelu SkipLayerNormalization Swish
    SimplifiedLayerNormalization
    """.split()
)


def is_light(node: onnx.NodeProto) -> bool:
    """Whether the operator costs little beside the convolutions and products around it."""
    return node.op_type in LIGHT_OPERATORS


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
