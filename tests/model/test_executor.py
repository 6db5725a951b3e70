"""A head followed by its tail gives what the whole model gives, whatever the graph."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import NETWORKS, Network
from onnx.reference import ReferenceEvaluator

from offramp.errors import OfframpError
from offramp.model.blocks import BranchyModel, load_model
from offramp.model.executor import ChainExecutor, WholeModel
from offramp.model.extract import BlockWriter
from offramp.model.inputs import random_inputs
from offramp.model.tensors import Array, relative_error
from offramp.model.verify import cut_errors

SIZES = (1, 3, 10)
TOLERANCE = 1e-5  # relative, as promised for float32


def own_inputs(model: BranchyModel, exit: int, inputs: dict[str, Array]) -> dict[str, Array]:
    return {spec.name: inputs[spec.name] for spec in model.boundary(exit, 0)}


def test_head_and_tail_give_the_whole(model: BranchyModel) -> None:
    executor, whole = ChainExecutor(model), WholeModel(model)
    rng = np.random.default_rng(1)
    for size in SIZES:
        inputs = random_inputs(model.inputs, size, rng)
        for exit in executor.exits:
            expected = whole.run(exit, inputs)
            for cut in range(executor.layers(exit) + 1):
                crossing = executor.run_head(exit, cut, own_inputs(model, exit, inputs))
                # What crosses is exactly what was declared, byte for byte.
                boundary = executor.boundary(exit, cut)
                assert list(crossing) == [spec.name for spec in boundary]
                for spec in boundary:
                    assert crossing[spec.name].dtype == np.dtype(spec.dtype)
                    assert crossing[spec.name].shape == spec.shape_at(size)
                    assert crossing[spec.name].nbytes == size * spec.bytes_per_input
                # A tail gets copies, as it would from a network: nothing else passes between the sides.
                received = {name: array.copy() for name, array in crossing.items()}
                found = executor.run_tail(exit, cut, received)
                assert relative_error(found, expected) <= TOLERANCE, (exit, cut, size)


@pytest.mark.parametrize("name", ["plain_chain", "residual", "transformer", "two_inputs", "recurrent"])
def test_agrees_with_the_reference_evaluator(name: str, model_files: dict[str, Path]) -> None:
    model = load_model(model_files[name])
    executor = ChainExecutor(model)
    inputs = random_inputs(model.inputs, 2, np.random.default_rng(2))
    outputs = [exit.output for exit in model.exits]
    expected = ReferenceEvaluator(str(model_files[name])).run(outputs, inputs)
    for exit, reference in enumerate(expected, start=1):
        cut = executor.layers(exit) // 2
        crossing = executor.run_head(exit, cut, own_inputs(model, exit, inputs))
        np.testing.assert_allclose(executor.run_tail(exit, cut, crossing), reference, rtol=1e-4, atol=1e-5)


def test_all_exits_at_once_are_the_exits_one_by_one(model: BranchyModel) -> None:
    executor = ChainExecutor(model)
    inputs = random_inputs(model.inputs, 4, np.random.default_rng(3))
    together = executor.run_exits(inputs)
    assert list(together) == list(executor.exits)
    for exit, logits in together.items():
        np.testing.assert_array_equal(logits, executor.run(exit, own_inputs(model, exit, inputs)))


def test_each_node_and_weight_is_in_one_block(model: BranchyModel) -> None:
    nodes = [node for block in model.blocks for node in block.nodes]
    assert len(nodes) == len(set(nodes))
    writer = BlockWriter(model.graph, model.graph.source.load())
    large = {tensor.name for tensor in writer.initializers if math.prod(tensor.dims) >= 1024}
    uses = {name: sum(name in writer.weights(block) for block in model.blocks) for name in large}
    assert all(count >= 1 for count in uses.values())
    for name, count in uses.items():
        readers = sum(name in node.input for node in model.graph.nodes)
        assert count <= readers


def test_exits_share_the_trunk(model_files: dict[str, Path]) -> None:
    for name in ("plain_chain", "residual", "dense", "transformer"):
        exits = load_model(model_files[name]).exits
        for shallow, deep in pairwise(exits):
            assert set(shallow.blocks) & set(deep.blocks)


def test_only_the_blocks_of_the_wanted_exits_are_loaded(model_files: dict[str, Path]) -> None:
    model = load_model(model_files["residual"])
    executor = ChainExecutor(model, exits=[1])
    assert executor.exits == (1,)
    inputs = random_inputs(model.inputs, 2, np.random.default_rng(0))
    np.testing.assert_array_equal(executor.run(1, inputs), ChainExecutor(model).run(1, inputs))
    with pytest.raises(OfframpError, match="loaded"):
        executor.run(2, inputs)


def test_a_weight_of_two_blocks_is_held_once(model_files: dict[str, Path]) -> None:
    model = load_model(model_files["shared_head"])
    writer = BlockWriter(model.graph, model.graph.source.load())
    name = next(tensor.name for tensor in writer.initializers if tuple(tensor.dims) == (10, 1024))
    holders = [block for block in model.blocks if name in writer.weights(block)]
    assert len(holders) == 2
    for block in holders:
        declared = {w.name: w for w in writer.write(block, without=[name]).graph.initializer}
        assert not declared[name].raw_data
        assert not declared[name].float_data


def test_concurrent_calls_do_not_disturb_each_other(model_files: dict[str, Path]) -> None:
    model = load_model(model_files["dense"])
    executor = ChainExecutor(model)
    rng = np.random.default_rng(4)
    cases = []
    for case in range(24):
        exit = 1 + case % len(model.exits)
        inputs = random_inputs(model.inputs, 1 + case % 5, rng)
        cases.append((exit, case % (executor.layers(exit) + 1), inputs, executor.run(exit, inputs)))

    def split(case: tuple[int, int, dict[str, Array], Array]) -> bool:
        exit, cut, inputs, expected = case
        return np.array_equal(executor.run_tail(exit, cut, executor.run_head(exit, cut, inputs)), expected)

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(split, cases * 5))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda x: {}, "must be exactly"),
        (lambda x: {"x": x, "y": x}, "must be exactly"),
        (lambda x: {"x": x.astype(np.float64)}, "dtype of x = 'float64'"),
        (lambda x: {"x": x[:, :2]}, "shape of x"),
        (lambda x: {"x": x[0]}, "shape of x"),
        (lambda x: {"x": x[:0]}, "shape of x"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    change: object, complaint: str, model_files: dict[str, Path]
) -> None:
    model = load_model(model_files["residual"])
    executor = ChainExecutor(model)
    x = random_inputs(model.inputs, 2, np.random.default_rng(0))["x"]
    for run in (executor.run_head, executor.run_tail):
        with pytest.raises(OfframpError, match=complaint):
            run(1, 0, change(x))  # type: ignore[operator]


def test_inputs_of_different_sizes_are_refused(model_files: dict[str, Path]) -> None:
    model = load_model(model_files["two_inputs"])
    inputs = random_inputs(model.inputs, 3, np.random.default_rng(0))
    inputs["right"] = inputs["right"][:2]
    with pytest.raises(OfframpError, match="inputs in right = 2"):
        ChainExecutor(model).run(2, inputs)


@pytest.mark.parametrize(("exit", "cut"), [(0, 0), (4, 0), (1, -1), (1, 99)])
def test_exits_and_cuts_that_do_not_exist_are_refused(
    exit: int, cut: int, model_files: dict[str, Path]
) -> None:
    model = load_model(model_files["residual"])
    inputs = random_inputs(model.inputs, 1, np.random.default_rng(0))
    with pytest.raises(OfframpError, match="must lie in"):
        ChainExecutor(model).run_head(exit, cut, inputs)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_cut_errors_covers_every_cut(name: str, model_files: dict[str, Path]) -> None:
    model = load_model(model_files[name])
    found = [
        (exit, cut) for exit, cut, error in cut_errors(ChainExecutor(model), np.random.default_rng(0), (2,))
    ]
    assert found == [(e, c) for e, exit in enumerate(model.exits, 1) for c in range(len(exit.cuts))]


@st.composite
def random_networks(draw: st.DrawFn) -> onnx.ModelProto:
    """A random graph: each node reads one or two earlier tensors; exits at random places, at least one."""
    net = Network(seed=draw(st.integers(0, 100)))
    tensors = [net.conv(net.input("x", ["batch", 4, 4, 4]), 4, 4, 1)]
    kinds = st.sampled_from(["conv", "Relu", "Add", "Mul", "join", "Sigmoid"])
    for _ in range(draw(st.integers(2, 14))):
        kind = draw(kinds)
        a, b = (tensors[draw(st.integers(0, len(tensors) - 1))] for _ in range(2))
        if kind == "conv":
            tensors.append(net.conv(a, 4, 4, draw(st.sampled_from([1, 3]))))
        elif kind == "join":
            tensors.append(net.conv(net.op("Concat", a, b, axis=1), 8, 4, 1))
        else:
            tensors.append(net.op(kind, *((a, b) if kind in ("Add", "Mul") else (a,))))
    places = draw(st.lists(st.integers(0, len(tensors) - 1), min_size=1, max_size=4, unique=True))
    for i, place in enumerate(places):
        net.head(tensors[place], 4, f"exit{i}")
    return net.build()


@settings(max_examples=40)
@given(random_networks())
def test_any_graph_can_be_cut(tmp_path_factory: pytest.TempPathFactory, proto: onnx.ModelProto) -> None:
    path = tmp_path_factory.mktemp("random") / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    model = load_model(path)
    for exit in model.exits:
        assert exit.cuts[0] == tuple(spec for spec in model.inputs if spec in exit.cuts[0])
        assert [spec.name for spec in exit.cuts[-1]] == [exit.output]
    assert (
        max(error for _, _, error in cut_errors(ChainExecutor(model), np.random.default_rng(0), (1, 3)))
        <= TOLERANCE
    )


@pytest.mark.parametrize("name", ["shufflenet", "squeezenet"])
def test_networks_that_a_package_ships(name: str) -> None:
    """Old operator sets, weights from operators, and a batch fixed at one."""
    path = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"light_{name}.onnx"
    if not path.exists():
        pytest.skip("this version of the onnx package ships no networks")
    model = load_model(path)
    assert len(model.exits[0].layers) > 5
    executor = ChainExecutor(model)
    assert max(error for _, _, error in cut_errors(executor, np.random.default_rng(0), (2,))) <= TOLERANCE
