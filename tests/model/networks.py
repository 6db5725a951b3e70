"""Small networks built node by node with onnx.helper, one for each kind of graph that is to be cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, UINT8, INT64 = TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT64


class Network:
    """Collects nodes and weights; methods take and give tensor names."""

    def __init__(self, opset: int = 17, seed: int = 0) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.opset = opset
        self._rng = np.random.default_rng(seed)
        self._count = 0

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{kind.lower()}_{self._count}"

    def input(self, name: str, shape: Sequence[int | str], elem_type: int = FLOAT) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, elem_type, list(shape)))
        return name

    def output(self, tensor: str, name: str, classes: int = 10) -> None:
        self.nodes.append(helper.make_node("Identity", [tensor], [name]))
        self.outputs.append(helper.make_tensor_value_info(name, FLOAT, ["batch", classes]))

    def weight(self, *shape: int, scale: float | None = None) -> str:
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 1
        values = self._rng.standard_normal(shape) * (scale or 1 / np.sqrt(fan_in))
        return self.constant(values.astype(np.float32))

    def constant(self, values: np.ndarray, name: str | None = None) -> str:
        name = name or self._name("w")
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        output = self._name(kind)
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"n_{output}", **attributes))
        return output

    def conv(self, x: str, i: int, o: int, k: int = 3, stride: int = 1, group: int = 1) -> str:
        w, b = self.weight(o, i // group, k, k), self.weight(o)
        pads = [k // 2] * 4
        return self.op("Conv", x, w, b, kernel_shape=[k, k], pads=pads, strides=[stride, stride], group=group)

    def conv_relu(self, x: str, i: int, o: int, k: int = 3, stride: int = 1, group: int = 1) -> str:
        return self.op("Relu", self.conv(x, i, o, k, stride, group))

    def pool(self, x: str) -> str:
        return self.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])

    def linear(self, x: str, i: int, o: int) -> str:
        return self.op("Gemm", x, self.weight(o, i), self.weight(o), transB=1)

    def head(self, x: str, channels: int, name: str, classes: int = 10) -> None:
        flat = self.op("Flatten", self.op("GlobalAveragePool", x))
        self.output(self.linear(flat, channels, classes), name, classes)

    def build(self) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "network", self.inputs, self.outputs, self.weights)
        model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", self.opset)])
        onnx.checker.check_model(model)
        return model


def plain_chain() -> onnx.ModelProto:
    """uint8 images normalised inside, convolutions in a row, three exits; weights of one exit are large."""
    net = Network(opset=13)
    image = net.input("image", ["batch", 16, 16, 3], UINT8)
    x = net.op("Cast", image, to=FLOAT)
    x = net.op("Div", x, net.constant(np.float32(255.0)))
    x = net.op("Sub", x, net.constant(np.float32([0.4, 0.5, 0.6])))
    x = net.op("Transpose", x, perm=[0, 3, 1, 2])
    x = net.pool(net.conv_relu(x, 3, 16))
    net.head(net.conv_relu(x, 16, 16), 16, "exit1")
    x = net.pool(net.conv_relu(x, 16, 32))
    net.head(x, 32, "exit2")
    x = net.conv_relu(net.conv_relu(x, 32, 32), 32, 32)
    x = net.op("Relu", net.linear(net.op("Flatten", x), 512, 256))
    net.output(net.linear(x, 256, 10), "exit3")
    return net.build()


def residual() -> onnx.ModelProto:
    """Three stages of residual blocks with batch norm, an exit after each."""
    net = Network()
    x = net.conv_relu(net.input("x", ["batch", 3, 16, 16]), 3, 16)
    channels = 16
    for stage in range(3):
        for block in range(2):
            wide, stride = (channels * 2, 2) if stage and not block else (channels, 1)
            y = net.conv(net.conv_relu(x, channels, wide, stride=stride), wide, wide)
            one, zero = net.constant(np.ones(wide, np.float32)), net.constant(np.zeros(wide, np.float32))
            y = net.op("BatchNormalization", y, one, zero, zero, one)
            skip = x if wide == channels else net.conv(x, channels, wide, 1, stride)
            x, channels = net.op("Relu", net.op("Add", y, skip)), wide
        net.head(x, channels, f"exit{stage + 1}")
    return net.build()


def depthwise() -> onnx.ModelProto:
    """Inverted residuals with squeeze and excitation; opset 21."""
    net = Network(opset=21)
    x = net.op("HardSwish", net.conv(net.input("x", ["batch", 3, 16, 16]), 3, 16))
    for stage in range(3):
        wide = net.op("Relu", net.conv(x, 16, 64, 1))
        deep = net.op("Relu", net.conv(wide, 64, 64, 3, 1, 64))
        squeezed = net.op("Relu", net.conv(net.op("GlobalAveragePool", deep), 64, 16, 1))
        gate = net.op("Sigmoid", net.conv(squeezed, 16, 64, 1))
        x = net.op("Add", net.conv(net.op("Mul", deep, gate), 64, 16, 1), x)
        if stage:
            net.head(x, 16, f"exit{stage}")
    return net.build()


def dense() -> onnx.ModelProto:
    """Dense blocks: each convolution reads all the outputs before it."""
    net = Network()
    x, channels = net.conv_relu(net.input("x", ["batch", 3, 16, 16]), 3, 16), 16
    for stage in range(2):
        features = [x]
        for _ in range(4):
            joined = net.op("Concat", *features, axis=1) if len(features) > 1 else features[0]
            features.append(net.conv_relu(joined, channels, 8))
            channels += 8
        x = net.pool(net.conv_relu(net.op("Concat", *features, axis=1), channels, 24, 1))
        channels = 24
        net.head(x, 24, f"exit{stage + 1}")
    return net.build()


def inception() -> onnx.ModelProto:
    """Modules of four branches, whose nodes are written branch by branch and layer by layer in turns."""
    net = Network()
    x, channels = net.conv_relu(net.input("x", ["batch", 3, 16, 16]), 3, 16), 16
    for stage in range(2):
        a = net.conv(x, channels, 8, 1)
        b = net.conv(x, channels, 8, 1)
        c = net.conv(x, channels, 4, 1)
        d = net.op("MaxPool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1])
        b = net.conv(net.op("Relu", b), 8, 12)
        c = net.conv(net.op("Relu", c), 4, 8, 5)
        d = net.conv(d, channels, 4, 1)
        x, channels = net.op("Relu", net.op("Concat", a, b, c, d, axis=1)), 32
        net.head(x, 32, f"exit{stage + 1}")
    return net.build()


def transformer() -> onnx.ModelProto:
    """A small vision transformer whose reshapes and class token are computed from the batch size."""
    net = Network()
    width, heads, tokens = 32, 4, 17
    image = net.input("x", ["batch", 3, 16, 16])
    patches = net.op("Conv", image, net.weight(width, 3, 4, 4), kernel_shape=[4, 4], strides=[4, 4])
    batch = net.op("Slice", net.op("Shape", image), _ints(net, [0]), _ints(net, [1]))
    flat = net.op("Reshape", patches, net.op("Concat", batch, _ints(net, [width, -1]), axis=0))
    x = net.op("Transpose", flat, perm=[0, 2, 1])
    token_shape = net.op("Concat", batch, _ints(net, [1, width]), axis=0)
    token = net.op("Expand", net.weight(1, 1, width), token_shape)
    x = net.op("Add", net.op("Concat", token, x, axis=1), net.weight(1, tokens, width))
    for layer in range(3):
        shape = net.op("Concat", batch, _ints(net, [tokens, heads, width // heads]), axis=0)
        y = _norm(net, x, width)
        q, k, v = (net.op("Reshape", net.op("MatMul", y, net.weight(width, width)), shape) for _ in range(3))
        q, v = net.op("Transpose", q, perm=[0, 2, 1, 3]), net.op("Transpose", v, perm=[0, 2, 1, 3])
        scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 3, 1]))
        mixed = net.op("MatMul", net.op("Softmax", scores, axis=-1), v)
        back = net.op("Concat", batch, _ints(net, [tokens, width]), axis=0)
        mixed = net.op("Reshape", net.op("Transpose", mixed, perm=[0, 2, 1, 3]), back)
        x = net.op("Add", x, net.op("MatMul", mixed, net.weight(width, width)))
        hidden = net.op("Relu", net.op("MatMul", _norm(net, x, width), net.weight(width, 4 * width)))
        x = net.op("Add", x, net.op("MatMul", hidden, net.weight(4 * width, width)))
        if layer:
            first = net.op("Gather", x, net.constant(np.int64(0)), axis=1)
            net.output(net.linear(first, width, 10), f"exit{layer}")
    return net.build()


def _ints(net: Network, values: list[int]) -> str:
    return net.constant(np.array(values, np.int64))


def _norm(net: Network, x: str, width: int) -> str:
    return net.op("LayerNormalization", x, net.weight(width), net.weight(width), axis=-1)


def two_inputs() -> onnx.ModelProto:
    """A tower for each of two inputs, joined by an addition; the second input is read late as well."""
    net = Network()
    left = net.conv_relu(net.input("left", ["batch", 3, 16, 16]), 3, 16, stride=2)
    right_input = net.input("right", ["batch", 1, 16, 16], UINT8)
    right = net.conv_relu(net.op("Cast", right_input, to=FLOAT), 1, 16, stride=2)
    for _ in range(2):
        left, right = net.conv_relu(left, 16, 16), net.conv_relu(right, 16, 16)
    x = net.op("Add", left, right)
    net.head(x, 16, "exit1")
    x = net.conv_relu(x, 16, 32)
    mean = net.op("ReduceMean", net.op("Cast", right_input, to=FLOAT), axes=[1, 2, 3], keepdims=1)
    net.head(net.op("Add", x, mean), 32, "exit2")
    return net.build()


def recurrent() -> onnx.ModelProto:
    """Word indices through an embedding and two LSTMs; the batch is not the first axis inside."""
    net = Network()
    words = net.input("words", ["batch", 7], INT64)
    x = net.op("Transpose", net.op("Gather", net.weight(50, 16), words), perm=[1, 0, 2])
    for layer in range(2):
        weights = [net.weight(1, 4 * 16, 16), net.weight(1, 4 * 16, 16), net.weight(1, 8 * 16)]
        y = net.op("LSTM", x, *weights, hidden_size=16)
        x = net.op("Squeeze", y, _ints(net, [1]))
        last = net.op("Gather", x, net.constant(np.int64(-1)), axis=0)
        net.output(net.linear(last, 16, 10), f"exit{layer + 1}")
    return net.build()


def one_output() -> onnx.ModelProto:
    """A chain with a single output and Constant nodes: nothing but cuts."""
    net = Network(opset=15)
    x = net.input("x", ["n", 3, 16, 16])
    for i, o in ((3, 16), (16, 16), (16, 16), (16, 16)):
        x = net.conv_relu(x, i, o)
    half = numpy_helper.from_array(np.float32(0.5), "half")
    x = net.op("Mul", x, net.op("Constant", value=half))
    net.head(x, 16, "logits")
    return net.build()


def shared_head() -> onnx.ModelProto:
    """Both exits use the same large weights, and the second one reads the logits of the first."""
    net = Network()
    x = net.conv_relu(net.input("x", ["batch", 3, 16, 16]), 3, 16, stride=2)
    weight, bias = net.weight(10, 1024), net.weight(10)
    first = net.op("Gemm", net.op("Flatten", x), weight, bias, transB=1)
    net.output(first, "exit1")
    x = net.conv_relu(net.conv_relu(x, 16, 32), 32, 16)
    second = net.op("Gemm", net.op("Flatten", x), weight, bias, transB=1)
    net.output(net.op("Add", first, second), "exit2")
    return net.build()


NETWORKS: dict[str, Callable[[], onnx.ModelProto]] = {
    "plain_chain": plain_chain,
    "residual": residual,
    "depthwise": depthwise,
    "dense": dense,
    "inception": inception,
    "transformer": transformer,
    "two_inputs": two_inputs,
    "recurrent": recurrent,
    "one_output": one_output,
    "shared_head": shared_head,
}
