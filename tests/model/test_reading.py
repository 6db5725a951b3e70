"""Files that cannot be cut are refused in one line that names what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import FLOAT, NETWORKS, Network
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from offramp.errors import OfframpError
from offramp.model.blocks import load_model
from offramp.model.executor import ChainExecutor
from offramp.model.verify import cut_errors


def refused(path: Path, complaint: str) -> None:
    with pytest.raises(OfframpError, match=complaint) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def write(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x08\x07", b"PK\x03\x04" * 50, bytes(1000)])
def test_what_is_not_onnx(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    refused(path, "not an ONNX file")


def test_what_is_not_a_file(tmp_path: Path) -> None:
    refused(tmp_path / "absent.onnx", "cannot be read")
    refused(tmp_path, "cannot be read")


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_short(keep: float, tmp_path: Path) -> None:
    data = NETWORKS["residual"]().SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(data[: int(keep * len(data))])
    refused(path, "not an ONNX file|truncated|not a valid ONNX graph")


def test_weights_cut_short(tmp_path: Path) -> None:
    model = NETWORKS["residual"]()
    weight = next(tensor for tensor in model.graph.initializer if len(tensor.raw_data) > 1000)
    weight.raw_data = weight.raw_data[:-4]
    refused(write(model, tmp_path / "model.onnx"), f"weights of {weight.name}.*truncated")


def external(folder: Path, location: str = "weights.bin", length: int | None = None) -> Path:
    """The residual network with its weights in another file."""
    model = NETWORKS["residual"]()
    folder.mkdir(exist_ok=True)
    data = b""
    for tensor in model.graph.initializer:
        raw = tensor.raw_data
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", len(data)), ("length", len(raw))):
            tensor.external_data.add(key=key, value=str(value))
        data += raw
    (folder / "weights.bin").write_bytes(data[:length])
    return write(model, folder / "model.onnx")


def test_external_data_beside_the_model_is_used(tmp_path: Path) -> None:
    executor = ChainExecutor(load_model(external(tmp_path / "bundle")))
    assert max(error for _, _, error in cut_errors(executor, np.random.default_rng(0), (2,))) <= 1e-5


@pytest.mark.parametrize(
    "location", ["../weights.bin", "/etc/passwd", "a/../../weights.bin", "..\\weights.bin", ""]
)
def test_external_data_outside_the_folder(location: str, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(1_000_000))
    refused(external(tmp_path / "bundle", location), "must stay in the model's folder")


def test_external_data_behind_a_link(tmp_path: Path) -> None:
    path = external(tmp_path / "bundle")
    (path.parent / "weights.bin").rename(tmp_path / "elsewhere.bin")
    (path.parent / "weights.bin").symlink_to(tmp_path / "elsewhere.bin")
    refused(path, "must not be a link")


def test_external_data_missing_or_short(tmp_path: Path) -> None:
    refused(external(tmp_path / "short", length=1000), "ends before the weights do")
    path = external(tmp_path / "missing")
    (path.parent / "weights.bin").unlink()
    refused(path, "no such file")


def test_a_file_that_changes_under_us(tmp_path: Path) -> None:
    path = write(NETWORKS["residual"](), tmp_path / "model.onnx")
    model = load_model(path)
    write(NETWORKS["dense"](), path)
    with pytest.raises(OfframpError, match="changed while in use"):
        ChainExecutor(model)


def one_node(kind: str, **attributes: object) -> onnx.ModelProto:
    """An unchecked network with a node of this kind at its end."""
    net = Network()
    x = net.conv_relu(net.input("x", ["batch", 3, 8, 8]), 3, 4)
    net.nodes.append(helper.make_node(kind, [x], ["exit1"], name="culprit", **attributes))
    net.outputs.append(helper.make_tensor_value_info("exit1", FLOAT, ["batch", 4, 8, 8]))
    graph = helper.make_graph(net.nodes, "network", net.inputs, net.outputs, net.weights)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def branch() -> onnx.GraphProto:
    return helper.make_graph([], "then", [], [helper.make_tensor_value_info("x", FLOAT, None)])


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (
            lambda: one_node("If", then_branch=branch(), else_branch=branch()),
            "operator If = 'culprit'.*control flow",
        ),
        (lambda: one_node("SequenceConstruct"), "operator SequenceConstruct = 'culprit'.*sequence"),
        (lambda: one_node("RandomNormalLike"), "operator RandomNormalLike = 'culprit'.*random"),
        (lambda: one_node("NoSuchOperator"), "not a valid ONNX graph|not accepted"),
    ],
)
def test_constructs_that_cannot_be_cut(
    build: Callable[[], onnx.ModelProto], complaint: str, tmp_path: Path
) -> None:
    path = write(build(), tmp_path / "model.onnx")
    with pytest.raises(OfframpError, match=complaint):
        ChainExecutor(load_model(path))


@pytest.mark.parametrize(
    ("shape", "complaint"),
    [
        ([2, 3, 8, 8], "input x = .*free batch axis"),
        (["batch", 3, "height", 8], "input x = .*every axis but the first"),
        ([], "input x = .*free batch axis"),
    ],
)
def test_inputs_without_a_free_batch_axis(shape: list[int | str], complaint: str, tmp_path: Path) -> None:
    net = Network()
    x = net.input("x", shape)
    net.output(net.op("Relu", x), "exit1")
    graph = helper.make_graph(net.nodes, "network", net.inputs, net.outputs, net.weights)
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    refused(write(model, tmp_path / "model.onnx"), complaint)


def fixed_at_one(reduce_over_batch: bool) -> onnx.ModelProto:
    """A network for one input at a time, whose Reshape targets name the 1."""
    net = Network()
    x = net.conv_relu(net.input("x", [1, 3, 8, 8]), 3, 8)
    groups = net.op("Reshape", x, net.constant(np.array([1, 2, 4, 8, 8])))
    shuffled = net.op("Transpose", groups, perm=[0, 2, 1, 3, 4])
    x = net.conv_relu(net.op("Reshape", shuffled, net.constant(np.array([1, 8, 8, 8]))), 8, 8)
    if reduce_over_batch:
        x = net.op("Add", x, net.op("ReduceMax", x, axes=[0], keepdims=1))
    x = net.op("Reshape", x, net.constant(np.array([1, -1])))
    net.output(net.linear(x, 512, 10), "exit1")
    graph = helper.make_graph(net.nodes, "network", net.inputs, net.outputs, net.weights)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def test_a_batch_fixed_at_one_is_freed(tmp_path: Path) -> None:
    """Each of several inputs gets the answer that the file's own graph gives to it alone."""
    path = write(fixed_at_one(reduce_over_batch=False), tmp_path / "model.onnx")
    model = load_model(path)
    assert model.inputs[0].shape == (None, 3, 8, 8)
    x = np.random.default_rng(0).standard_normal((5, 3, 8, 8)).astype(np.float32)
    found = ChainExecutor(model).run(1, {"x": x})
    reference = ReferenceEvaluator(str(path))
    for i in range(5):
        expected = reference.run(None, {"x": x[i : i + 1]})[0][0]
        np.testing.assert_allclose(found[i], expected, rtol=1e-3, atol=1e-4)


def test_a_batch_that_cannot_be_freed(tmp_path: Path) -> None:
    """Here inputs of one batch would change each other's answers."""
    path = write(fixed_at_one(reduce_over_batch=True), tmp_path / "model.onnx")
    refused(path, "does not allow to free it")


def test_exits_that_share_no_trunk(tmp_path: Path) -> None:
    net = Network()
    for name in ("a", "b"):
        net.head(net.conv_relu(net.input(name, ["batch", 3, 8, 8]), 3, 4), 4, f"exit_{name}")
    refused(write(net.build(), tmp_path / "model.onnx"), "share no trunk")


def test_an_output_that_no_input_reaches(tmp_path: Path) -> None:
    net = Network()
    net.head(net.conv_relu(net.input("x", ["batch", 3, 8, 8]), 3, 4), 4, "exit1")
    net.output(net.op("Relu", net.constant(np.ones((1, 10), np.float32))), "exit2")
    refused(write(net.build(), tmp_path / "model.onnx"), "output = 'exit2'.*computed from")


def test_exits_by_name(model_files: dict[str, Path]) -> None:
    path = model_files["residual"]
    assert [exit.output for exit in load_model(path, ["exit3", "exit1"]).exits] == ["exit3", "exit1"]
    for outputs, complaint in (
        (["exit9"], "must be one of exit1, exit2, exit3"),
        (["exit1", "exit1"], "distinct"),
        ([], "at least one"),
    ):
        with pytest.raises(OfframpError, match=complaint):
            load_model(path, outputs)


def test_outputs_without_order_are_sorted_by_work(tmp_path: Path) -> None:
    net = Network()
    x = net.conv_relu(net.input("x", ["batch", 3, 8, 8]), 3, 8)
    deep = net.conv_relu(net.conv_relu(x, 8, 8), 8, 8)
    net.head(deep, 8, "deep")
    net.head(x, 8, "shallow")
    model = load_model(write(net.build(), tmp_path / "model.onnx"))
    assert [exit.output for exit in model.exits] == ["shallow", "deep"]
    # 3·8·9·64 for the stem and 8·10 for the head; two more convolutions of 8·8·9·64 for the deep one.
    assert [exit.macs for exit in model.exits] == [13_824 + 80, 13_824 + 2 * 36_864 + 80]


def test_functions_are_inlined(tmp_path: Path) -> None:
    model = NETWORKS["residual"]()
    body = [helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Identity", ["b"], ["c"])]
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("local", "Rectify", ["a"], ["c"], body, opsets))
    model.opset_import.append(helper.make_opsetid("local", 1))
    for node in model.graph.node:
        if node.op_type == "Relu":
            node.op_type, node.domain = "Rectify", "local"
    changed = load_model(write(model, tmp_path / "functions.onnx"))
    plain = load_model(write(NETWORKS["residual"](), tmp_path / "plain.onnx"))
    assert [exit.cut_bytes for exit in changed.exits] == [exit.cut_bytes for exit in plain.exits]
    assert (
        max(error for _, _, error in cut_errors(ChainExecutor(changed), np.random.default_rng(0), (2,)))
        <= 1e-5
    )


def test_shapes_are_found_by_a_run_where_inference_has_no_rule(tmp_path: Path) -> None:
    net = Network()
    x = net.conv(net.input("x", ["batch", 3, 8, 8]), 3, 4)
    gelu = "custom"
    net.nodes.append(helper.make_node("Gelu", [x], [gelu], domain="com.microsoft"))
    x = net.conv_relu(gelu, 4, 8)
    net.head(net.conv_relu(x, 8, 8), 8, "exit1")
    graph = helper.make_graph(net.nodes, "network", net.inputs, net.outputs, net.weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = load_model(
        write(helper.make_model(graph, ir_version=8, opset_imports=opsets), tmp_path / "m.onnx")
    )
    assert model.graph.extent[gelu].at(5) == (5, 4, 8, 8)
    assert len(model.exits[0].layers) >= 2
    assert (
        max(error for _, _, error in cut_errors(ChainExecutor(model), np.random.default_rng(0), (3,))) <= 1e-5
    )


def test_the_order_of_nodes_in_the_file_does_not_matter(tmp_path: Path) -> None:
    model = NETWORKS["inception"]()
    expected = [exit.cut_bytes for exit in load_model(write(model, tmp_path / "a.onnx")).exits]
    nodes = list(model.graph.node)
    made = {tensor.name for tensor in model.graph.initializer} | {"x"}
    shuffled: list[onnx.NodeProto] = []
    rng = np.random.default_rng(0)
    while nodes:
        ready = [node for node in nodes if set(node.input) <= made]
        node = ready[rng.integers(len(ready))]
        nodes.remove(node)
        shuffled.append(node)
        made |= set(node.output)
    del model.graph.node[:]
    model.graph.node.extend(shuffled)
    assert [exit.cut_bytes for exit in load_model(write(model, tmp_path / "b.onnx")).exits] == expected


def test_cheap_nodes_stay_with_the_heavy_one_before_them(model_files: dict[str, Path]) -> None:
    model = load_model(model_files["plain_chain"])
    first = model.exits[0].cuts
    # The images cross as bytes, not as the floats that they become inside.
    assert [(spec.name, spec.dtype, spec.shape) for spec in first[0]] == [
        ("image", "uint8", (None, 16, 16, 3))
    ]
    kinds = [[model.graph.nodes[node].op_type for node in block.nodes] for block in model.blocks]
    assert kinds[0] == ["Cast", "Div", "Sub", "Transpose", "Conv", "Relu", "MaxPool"]
    assert all(kind[0] != "Relu" for kind in kinds)


def test_a_tensor_kept_as_typed_values(tmp_path: Path) -> None:
    model = NETWORKS["one_output"]()
    for index, tensor in enumerate(model.graph.initializer):
        array = numpy_helper.to_array(tensor)
        typed = helper.make_tensor(tensor.name, TensorProto.FLOAT, array.shape, array.ravel().tolist())
        model.graph.initializer[index].CopyFrom(typed)
    path = write(model, tmp_path / "typed.onnx")
    assert (
        max(
            error
            for _, _, error in cut_errors(ChainExecutor(load_model(path)), np.random.default_rng(0), (2,))
        )
        <= 1e-5
    )
    del model.graph.initializer[0].float_data[-1]
    refused(write(model, tmp_path / "short.onnx"), "elements")
