"""Runs any part of a branchy model: a session for each block, chained; shared blocks exist once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort

from offramp.errors import OfframpError
from offramp.model.blocks import BranchyModel
from offramp.model.extract import BlockWriter
from offramp.model.pool import WeightPool
from offramp.model.sessions import make_session, return_memory, run_session
from offramp.model.tensors import Array, TensorSpec, check_tensors

# Weights below this size that several blocks use are copied into each.
_SHARED_WEIGHT_BYTES = 4096

OnBlock = Callable[[int], None]


class ChainExecutor:
    """Runs exits 1..u of a model, whole or on either side of a cut. Safe to call from several threads.

    `exits` limits which exits (and so which blocks and weights) are loaded; `threads` is for each session. With a
    `pool`, sessions of other parts of the model can use the same weights; loading then takes about twice as long.
    """

    def __init__(
        self,
        model: BranchyModel,
        *,
        exits: Iterable[int] | None = None,
        threads: int = 1,
        pool: WeightPool | None = None,
    ) -> None:
        numbers = range(1, len(model.exits) + 1) if exits is None else sorted(set(exits))
        self._model = model
        self._threads = threads
        self._plans = {number: _Plan(model, number) for number in numbers}
        blocks = sorted({block for number in numbers for block in model.exit(number).blocks})
        # Sessions use the shared weights in place, so these must live as long as they do.
        self._shared: Mapping[str, Any] | WeightPool
        if pool is None:
            self._sessions, self._shared = _block_sessions(model, blocks, threads)
        else:
            self._sessions, self._shared = _pooled_sessions(model, blocks, threads, pool), pool
        return_memory()

    @property
    def model(self) -> BranchyModel:
        """The model that runs."""
        return self._model

    @property
    def threads(self) -> int:
        """Threads of each session."""
        return self._threads

    @property
    def exits(self) -> tuple[int, ...]:
        """The exits that are loaded."""
        return tuple(self._plans)

    def layers(self, exit_number: int) -> int:
        """Number of layers l of an exit."""
        return len(self._model.exit(exit_number).layers)

    def boundary(self, exit_number: int, cut: int) -> tuple[TensorSpec, ...]:
        """What crosses at cut 0..l of an exit."""
        return self._model.boundary(exit_number, cut)

    def run_head(
        self, exit_number: int, cut: int, inputs: Mapping[str, Array], *, on_block: OnBlock | None = None
    ) -> dict[str, Array]:
        """Layers 1..cut on `inputs`: the tensors that cross, by name (the inputs themselves at cut 0).

        `on_block` is called with each block's index just before it runs. Raises OfframpError if the exit is
        not loaded, the cut does not exist or the inputs do not fit.
        """
        wanted = [spec.name for spec in self.boundary(exit_number, cut)]
        values = given_tensors(inputs, self.boundary(exit_number, 0))
        if cut == 0:
            return {name: inputs[name] for name in wanted}
        self._advance(exit_number, 0, cut, values, on_block)
        return {name: values[name] for name in wanted}

    def run_tail(
        self, exit_number: int, cut: int, tensors: Mapping[str, Array], *, on_block: OnBlock | None = None
    ) -> Array:
        """Layers cut+1..l on the tensors that crossed: the exit's logits, shape (n, classes).

        At cut l these are the logits that were given. `on_block` and errors are as in `run_head`.
        """
        output = self._model.exit(exit_number).output
        values = given_tensors(tensors, self.boundary(exit_number, cut))
        last = self.layers(exit_number)
        if cut == last:
            return tensors[output]
        self._advance(exit_number, cut, last, values, on_block)
        return values[output]

    def run(self, exit_number: int, inputs: Mapping[str, Array]) -> Array:
        """The exit's logits for `inputs`, all its layers."""
        return self.run_tail(exit_number, 0, inputs)

    def run_exits(self, inputs: Mapping[str, Array]) -> dict[int, Array]:
        """Logits of all the loaded exits, each shared block run once.

        Unlike the other methods this takes every input of the model.
        """
        values = given_tensors(inputs, self._model.inputs)
        wanted = {number: self._model.exit(number).output for number in self._plans}
        for index in sorted(self._sessions):
            block = self._model.blocks[index]
            made = run_session(
                self._sessions[index], {name: values[name] for name in block.inputs}, block.outputs
            )
            values.update(zip(block.outputs, made, strict=True))
        return {number: values[name] for number, name in wanted.items()}

    def _advance(
        self,
        exit_number: int,
        start: int,
        stop: int,
        values: dict[str, Array],
        on_block: OnBlock | None,
    ) -> None:
        """Run layers start+1..stop in place on `values`, which then holds what crosses at `stop`."""
        plan = self._plans.get(exit_number)
        if plan is None:
            raise OfframpError(
                "exit", exit_number, f"must be a loaded one: {list(self._plans)}", "load it first"
            )
        for step in plan.steps[plan.first_step[start] : plan.first_step[stop]]:
            if on_block is not None:
                on_block(step.block)
            made = run_session(
                self._sessions[step.block], {name: values[name] for name in step.inputs}, step.outputs
            )
            for name in step.done:
                del values[name]
            values.update(zip(step.outputs, made, strict=True))


class _Step:
    """A block as one exit runs it: only the outputs that this exit still needs, and what it frees."""

    __slots__ = ("block", "done", "inputs", "outputs")

    def __init__(self, block: int, inputs: tuple[str, ...], outputs: list[str], done: list[str]) -> None:
        self.block, self.inputs, self.outputs, self.done = block, inputs, outputs, done


class _Plan:
    """The steps of one exit; `first_step[c]` is the first step after cut c."""

    __slots__ = ("first_step", "steps")

    def __init__(self, model: BranchyModel, exit_number: int) -> None:
        branch = model.exit(exit_number)
        blocks = [model.blocks[index] for index in branch.blocks]
        last_reader = {name: i for i, block in enumerate(blocks) for name in block.inputs}
        last_reader[branch.output] = len(blocks)
        self.steps = [
            _Step(
                block.index,
                block.inputs,
                outputs=[name for name in block.outputs if last_reader.get(name, -1) > i],
                done=[name for name in block.inputs if last_reader[name] == i],
            )
            for i, block in enumerate(blocks)
        ]
        self.first_step = [0]
        for layer in branch.layers:
            self.first_step.append(self.first_step[-1] + len(layer.blocks))


class WholeModel:
    """One session for the whole file: what a chain of blocks is compared with.

    It computes all the exits, whichever is asked for; the runtime does not leave out what is not needed.
    """

    def __init__(self, model: BranchyModel, *, threads: int = 1) -> None:
        self._model = model
        self._session = make_session(model.graph.source.load(), str(model.graph.source.path), threads=threads)
        return_memory()

    def run(self, exit_number: int, inputs: Mapping[str, Array]) -> Array:
        """The exit's logits, computed by the whole-model session."""
        check_tensors(inputs, self._model.inputs)
        logits: Array = run_session(self._session, inputs, [self._model.exit(exit_number).output])[0]
        return logits


def given_tensors(tensors: Mapping[str, Array], specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """Tensors as sessions take them. Raises OfframpError if they are not what `specs` declares."""
    check_tensors(tensors, specs)
    return {spec.name: np.ascontiguousarray(tensors[spec.name]) for spec in specs}


def _block_sessions(
    model: BranchyModel, blocks: Sequence[int], threads: int
) -> tuple[dict[int, Any], dict[str, Any]]:
    """A session for each block by index, and the weights that several of them use."""
    writer = BlockWriter(model.graph, model.graph.source.load())
    uses = Counter(name for index in blocks for name in writer.weights(model.blocks[index]))
    shared: dict[str, Any] = {}
    for name, count in uses.items():
        if count > 1 and (values := writer.array(name)).nbytes >= _SHARED_WEIGHT_BYTES:
            shared[name] = ort.OrtValue.ortvalue_from_numpy(values)
    sessions = {}
    for index in blocks:
        block = model.blocks[index]
        given = {name: shared[name] for name in writer.weights(block) & shared.keys()}
        proto = writer.write(block, without=given.keys())
        sessions[index] = make_session(proto, f"block {block.name}", threads=threads, shared=given)
    return sessions, shared


def _pooled_sessions(
    model: BranchyModel, blocks: Sequence[int], threads: int, pool: WeightPool
) -> dict[int, Any]:
    """A session for each block by index, on weights of the pool."""
    writer = BlockWriter(model.graph, model.graph.source.load())
    sessions = {}
    for index in blocks:
        block = model.blocks[index]
        sessions[index] = pool.session(
            writer.write(block), f"block {block.name}", threads, adopt=True
        ).session
    return sessions
