"""A tail that almost every task has becomes one session: with the chain's results, within its memory, for a while."""

from __future__ import annotations

import logging
import math
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from networks import Network
from test_executor import own_inputs, random_networks

from offramp.errors import OfframpError
from offramp.model.blocks import BranchyModel, load_model
from offramp.model.executor import ChainExecutor
from offramp.model.extract import BlockWriter
from offramp.model.hot_tails import ALWAYS_BYTES, FORETOLD, HOT_SHARE, PAUSE, RECENT, HotTails
from offramp.model.inputs import random_inputs
from offramp.model.pool import WeightPool
from offramp.model.tensors import Array, relative_error

TOLERANCE = 1e-5  # relative, as promised for float32


def hot_tails(model: BranchyModel) -> HotTails:
    pool = WeightPool()
    return HotTails(ChainExecutor(model, pool=pool), pool)


def crossing(model: BranchyModel, exit: int, cut: int, size: int = 1) -> dict[str, Array]:
    inputs = random_inputs(model.inputs, size, np.random.default_rng(size))
    return ChainExecutor(model, exits=[exit]).run_head(exit, cut, own_inputs(model, exit, inputs))


def heat(tails: HotTails, exit: int, cut: int, tensors: dict[str, Array], runs: int = RECENT) -> None:
    """Run a tail so often, and wait for what comes of that."""
    for _ in range(runs):
        tails.run_tail(exit, cut, tensors)
    tails.settle()


def agree(model: BranchyModel, sizes: tuple[int, ...] = (1, 3, 10)) -> None:
    """Every tail of several blocks gives as one session what the plain chain gives."""
    plain = ChainExecutor(model)
    for exit in plain.exits:
        for cut in range(plain.layers(exit)):
            tails = hot_tails(model)
            heat(tails, exit, cut, crossing(model, exit, cut))
            several = sum(len(layer.blocks) for layer in model.exit(exit).layers[cut:]) > 1
            assert tails.hot == ((exit, cut) if several else None)
            for size in sizes:
                tensors = crossing(model, exit, cut, size)
                found, expected = (each.run_tail(exit, cut, tensors) for each in (tails, plain))
                assert relative_error(found, expected) <= TOLERANCE, (exit, cut, size)
                assert (found.argmax(1) == expected.argmax(1)).all()


def test_one_session_gives_what_the_chain_gives(model: BranchyModel) -> None:
    agree(model)


@settings(max_examples=15, deadline=None)
@given(proto=random_networks())
def test_so_it_does_for_any_graph(proto: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("random") / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    agree(load_model(path), (2,))


def test_a_chain_on_pooled_weights_gives_what_the_plain_one_gives(model: BranchyModel) -> None:
    plain, pooled = ChainExecutor(model), ChainExecutor(model, pool=WeightPool())
    inputs = random_inputs(model.inputs, 3, np.random.default_rng(0))
    for exit, expected in plain.run_exits(inputs).items():
        for cut in range(plain.layers(exit) + 1):
            head = pooled.run_head(exit, cut, own_inputs(model, exit, inputs))
            assert relative_error(pooled.run_tail(exit, cut, head), expected) <= TOLERANCE


def test_it_takes_almost_all_of_the_runs_to_be_hot(model_files: dict[str, Path]) -> None:
    model = load_model(model_files["residual"])
    tails = hot_tails(model)
    tensors = crossing(model, 1, 0)
    others = math.ceil((1 - HOT_SHARE) * RECENT)
    for number in range(4 * RECENT):
        tails.run_tail(2 if number % RECENT < others else 1, 0, tensors)
    tails.settle()
    assert tails.hot is None
    heat(tails, 1, 0, tensors)
    assert tails.hot == (1, 0)


def test_it_is_dropped_when_the_mix_changes_and_another_is_made_later(model_files: dict[str, Path]) -> None:
    model = load_model(model_files["residual"])
    tails = hot_tails(model)
    tensors = crossing(model, 1, 0)
    heat(tails, 3, 0, tensors)
    assert tails.hot == (3, 0)
    heat(tails, 2, 0, tensors, RECENT // 4)
    assert tails.hot == (3, 0)  # three quarters of the runs have it still
    heat(tails, 2, 0, tensors, 3 * RECENT // 4)
    assert tails.hot is None
    heat(tails, 2, 0, tensors, PAUSE // 2)
    assert tails.hot is None  # too soon
    heat(tails, 2, 0, tensors, PAUSE // 2)
    assert tails.hot == (2, 0)


def test_what_is_expected_is_there_before_the_first_run(model_files: dict[str, Path]) -> None:
    tails = hot_tails(load_model(model_files["residual"]))
    for _ in range(RECENT // FORETOLD - 1):
        tails.expect(2, 0)
    tails.settle()
    assert tails.hot is None  # too few tasks for a session
    tails.expect(2, 0)
    tails.settle()
    assert tails.hot == (2, 0)


def test_what_is_no_task_makes_no_tail_hot(model_files: dict[str, Path]) -> None:
    model = load_model(model_files["residual"])
    tails = hot_tails(model)
    tensors = crossing(model, 2, 0)
    logits = [tails.run_uncounted(2, 0, tensors) for _ in range(2 * RECENT)]
    tails.settle()
    assert tails.hot is None
    heat(tails, 2, 0, tensors)
    assert tails.hot == (2, 0)
    np.testing.assert_allclose(tails.run_uncounted(2, 0, tensors), logits[0], rtol=1e-4, atol=1e-4)


def products(path: Path, side: int) -> BranchyModel:
    """Five products of `side` by `side` weights, none of which sessions can share."""
    net = Network()
    x = net.input("x", ["batch", side])
    for exit in range(2):
        x = net.op("Relu", net.linear(net.op("Relu", net.linear(x, side, side)), side, side))
        net.output(net.linear(x, side, 10), f"exit{exit + 1}")
    path.write_bytes(net.build().SerializeToString())
    return load_model(path)


def test_what_takes_too_much_memory_stays_a_chain(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    side = math.isqrt(ALWAYS_BYTES // 4 // 4)
    model = products(tmp_path / "small.onnx", side - 64)
    tails = hot_tails(model)
    heat(tails, 2, 0, crossing(model, 2, 0))
    assert tails.hot == (2, 0)
    model = products(tmp_path / "large.onnx", side)
    tails = hot_tails(model)
    tensors = crossing(model, 2, 0)
    with caplog.at_level(logging.INFO):
        heat(tails, 2, 0, tensors)
    assert tails.hot is None
    assert "stays a chain" in caplog.text
    expected = ChainExecutor(model).run_tail(2, 0, tensors)
    assert relative_error(tails.run_tail(2, 0, tensors), expected) <= TOLERANCE


def _proto(model: BranchyModel, exit: int, cut: int) -> onnx.ModelProto:
    return BlockWriter(model.graph, model.graph.source.load()).write(model.tail(exit, cut))


def test_what_is_so_large_that_calls_count_for_little_stays_a_chain(
    model_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("offramp.model.hot_tails.LARGEST_ELEMENTS", 1000)
    model = load_model(model_files["residual"])
    tails = hot_tails(model)
    with caplog.at_level(logging.INFO):
        heat(tails, 2, 0, crossing(model, 2, 0))
    assert tails.hot is None
    assert "stays a chain of sessions: it has" in caplog.text


def test_sessions_of_convolutions_copy_none_of_their_weights(model_files: dict[str, Path]) -> None:
    model = load_model(model_files["residual"])
    pool = WeightPool()
    ChainExecutor(model, pool=pool)
    proto = _proto(model, 3, 0)
    own_bytes = pool.session(proto, "tail", 1, adopt=False).own_bytes
    assert own_bytes < proto.ByteSize() / 10


def test_without_a_place_for_files_every_session_has_its_own_weights(
    model_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("no room")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", full)
    model = load_model(model_files["residual"])
    tails = hot_tails(model)
    tensors = crossing(model, 2, 0)
    heat(tails, 2, 0, tensors)
    assert "shares no weights" in caplog.text
    assert tails.hot == (2, 0)  # these weights are few
    expected = ChainExecutor(model).run_tail(2, 0, tensors)
    assert relative_error(tails.run_tail(2, 0, tensors), expected) <= TOLERANCE


@pytest.mark.parametrize("failure", [OfframpError("model", "tail", "refused"), RuntimeError("broken")])
def test_what_the_runtime_refuses_stays_a_chain(
    failure: Exception,
    model_files: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = load_model(model_files["residual"])
    tails = hot_tails(model)
    tries = []

    def refuse(*_: Any, **__: Any) -> None:
        tries.append(0)
        raise failure

    monkeypatch.setattr(WeightPool, "session", refuse)
    tensors = crossing(model, 2, 0)
    heat(tails, 2, 0, tensors, 2 * PAUSE)
    assert tails.hot is None
    assert len(tries) == 1
    assert "stays a chain" in caplog.text
    np.testing.assert_array_equal(
        tails.run_tail(2, 0, tensors), ChainExecutor(model, exits=[2]).run_tail(2, 0, tensors)
    )


def held_back(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """No session is made until this is set."""
    make: Callable[..., Any] = WeightPool.session
    may_be_made = threading.Event()

    def slowly(*given: Any, **named: Any) -> Any:
        assert may_be_made.wait(30)
        return make(*given, **named)

    monkeypatch.setattr(WeightPool, "session", slowly)
    return may_be_made


def test_tasks_go_on_while_a_session_is_made(
    model_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(model_files["residual"])
    tails = hot_tails(model)
    tensors = crossing(model, 2, 0)
    plain = ChainExecutor(model).run_tail(2, 0, tensors)
    may_be_made = held_back(monkeypatch)
    for _ in range(2 * RECENT):
        assert relative_error(tails.run_tail(2, 0, tensors), plain) <= TOLERANCE
    assert tails.hot is None
    may_be_made.set()
    tails.settle()
    assert tails.hot == (2, 0)


def test_one_that_nobody_wants_any_more_when_it_is_there_is_not_used(
    model_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(model_files["residual"])
    tails = hot_tails(model)
    tensors = crossing(model, 2, 0)
    may_be_made = held_back(monkeypatch)
    for exit in (2, 1):
        for _ in range(RECENT):
            tails.run_tail(exit, 0, tensors)
    may_be_made.set()
    tails.settle()
    assert tails.hot is None


def test_several_threads_get_the_right_logits_through_all_changes(model_files: dict[str, Path]) -> None:
    model = load_model(model_files["dense"])
    tails, plain = hot_tails(model), ChainExecutor(model)
    cases = []
    for exit in plain.exits:
        tensors = crossing(model, exit, 1, 2)
        cases.append((exit, tensors, plain.run_tail(exit, 1, tensors)))

    def right(number: int) -> bool:
        exit, tensors, expected = cases[number // 1500 % len(cases)]
        return relative_error(tails.run_tail(exit, 1, tensors), expected) <= TOLERANCE

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(right, range(6000)))
    tails.settle()
    assert tails.hot is not None


def test_tensors_that_do_not_fit_are_refused_by_one_session_too(model_files: dict[str, Path]) -> None:
    model = load_model(model_files["residual"])
    tails = hot_tails(model)
    tensors = crossing(model, 2, 0)
    heat(tails, 2, 0, tensors)
    with pytest.raises(OfframpError, match="shape of x"):
        tails.run_tail(2, 0, {"x": tensors["x"][:, :2]})
