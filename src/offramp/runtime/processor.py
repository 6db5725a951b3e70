"""Computing: parts of exits on this machine, stretched where it stands for a slower one, and its measured speed."""

from __future__ import annotations

import logging
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from offramp.errors import OfframpError
from offramp.model.codecs import find_codec
from offramp.model.inputs import random_inputs
from offramp.model.tensors import Array, TensorSpec, check_tensors
from offramp.profile import ExitCoefficients
from offramp.task import UNCODED

_LOG = logging.getLogger(__name__)
CALIBRATION_SIZES = (1, 4, 8)
CALIBRATION_ROUNDS = 3


class Executor(Protocol):
    """What the runtime needs of a model: see `offramp.model.executor.ChainExecutor`."""

    def layers(self, exit_number: int) -> int:
        """Number of layers l of an exit."""
        ...

    def boundary(self, exit_number: int, cut: int) -> tuple[TensorSpec, ...]:
        """What crosses at cut 0..l of an exit."""
        ...

    def run_head(self, exit_number: int, cut: int, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Layers 1..cut: the tensors that cross, by name."""
        ...

    def run_tail(self, exit_number: int, cut: int, tensors: Mapping[str, Array]) -> Array:
        """Layers cut+1..l: the exit's logits."""
        ...


@dataclass(frozen=True, slots=True)
class Coded:
    """What crosses a cut as a codec has packed it, for `size` inputs."""

    codec: str
    payload: bytes | memoryview
    size: int


Crossed = Mapping[str, Array] | Coded
"""What has crossed a cut: the tensors by name, or what a codec has made of them."""


class BadPayloadError(Exception):
    """What was to be decoded is not what the codec makes of the cut's tensors."""


class Computed(NamedTuple):
    """What crosses where a computation stopped, the same as it travels, and the seconds that all took."""

    tensors: Mapping[str, Array]
    coded: Coded | None
    took_s: float


class Answered(NamedTuple):
    """An output's name, the logits of each task or None if its payload was bad, and the seconds that all took."""

    output: str
    logits: list[Array | None]
    took_s: float


def joined(tensors: Sequence[Mapping[str, Array]], specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """The tensors of several tasks as those of one."""
    return {
        spec.name: np.concatenate([each[spec.name] for each in tensors], axis=spec.batch_axis)
        for spec in specs
    }


def split(array: Array, sizes: Sequence[int], spec: TensorSpec) -> list[Array]:
    """What tasks of these sizes have of an array that was made for all of them together."""
    return np.split(array, np.cumsum(sizes)[:-1], axis=spec.batch_axis)


def _size(tensors: Mapping[str, Array], specs: Sequence[TensorSpec]) -> int:
    size: int = tensors[specs[0].name].shape[specs[0].batch_axis]
    return size


class Tails(Protocol):
    """What the edge's server needs of a `Processor`, wherever that computes."""

    def run_tails(self, exit: int, cut: int, given: Sequence[Crossed]) -> Answered:
        """See `Processor`. Called by as many threads as the edge has workers."""
        ...

    def expect(self, exit: int, cut: int) -> None:
        """A task is going to have this tail."""
        ...

    def stop(self) -> None:
        """Compute no more; nothing is under way."""
        ...


class Processor:
    """Runs parts of exits, each `stretch` >= 1 times as long as it keeps this thread's processor busy.

    Only processor time is stretched: what another process takes from us is not multiplied. `expect` is told of tails
    that are going to be run, and `run_uncounted` runs one that is no task's; the executor does if it is not given.
    """

    def __init__(
        self,
        executor: Executor,
        stretch: float = 1.0,
        expect: Callable[[int, int], None] = lambda exit, cut: None,
        run_uncounted: Callable[[int, int, Mapping[str, Array]], Array] | None = None,
    ) -> None:
        self._executor = executor
        self._expect = expect
        self._stretch = stretch
        self._run_uncounted = run_uncounted or executor.run_tail
        self._blank: tuple[int, int, dict[str, Array]] | None = None
        self._stopped = threading.Event()

    def run(self, exit: int, start: int, stop: int, given: Crossed, codec: str = UNCODED) -> Computed:
        """Decode what crosses at `start`, run layers start+1..stop, and encode what crosses at `stop`, as asked for.

        One of `start` = 0 and `stop` = l must hold. Raises BadPayloadError.
        """
        began_s, busy_s = time.perf_counter(), time.thread_time()
        tensors = self._decoded(exit, start, given) if isinstance(given, Coded) else given
        if start == 0:
            made = self._executor.run_head(exit, stop, tensors)
        else:
            output = self._executor.boundary(exit, stop)[0].name
            made = {output: self._executor.run_tail(exit, start, tensors)}
        coded = None if codec == UNCODED else self._encoded(exit, stop, made, codec)
        due_s = began_s + self._stretch * (time.thread_time() - busy_s)
        if self._stretch > 1.0 and (left_s := due_s - time.perf_counter()) > 0:
            self._stopped.wait(left_s)
        return Computed(made, coded, time.perf_counter() - began_s)

    def run_tails(self, exit: int, cut: int, given: Sequence[Crossed]) -> Answered:
        """Decode what has crossed at a cut for several tasks, and run the layers behind it once for all of them."""
        began_s = time.perf_counter()
        output = self._executor.boundary(exit, self._executor.layers(exit))[0]
        tensors: list[Mapping[str, Array] | None] = []
        for crossed in given:
            try:
                tensors.append(self._decoded(exit, cut, crossed) if isinstance(crossed, Coded) else crossed)
            except BadPayloadError as error:
                _LOG.warning("%s at cut %d of exit %d", error, cut, exit)
                tensors.append(None)
        whole = [each for each in tensors if each is not None]
        made: list[Array | None] = [None] * len(given)
        if whole:
            specs = self._executor.boundary(exit, cut)
            if len(whole) == 1:
                parts = [self._executor.run_tail(exit, cut, whole[0])]
            else:
                logits = self._executor.run_tail(exit, cut, joined(whole, specs))
                parts = split(logits, [_size(each, specs) for each in whole], output)
            left = iter(parts)
            made = [None if each is None else next(left) for each in tensors]
        return Answered(output.name, made, time.perf_counter() - began_s)

    def expect(self, exit: int, cut: int) -> None:
        """See `Tails`."""
        self._expect(exit, cut)

    def run_blank(self, exit: int, cut: int) -> None:
        """Run the layers behind a cut on one input that is nobody's."""
        if self._blank is None or self._blank[:2] != (exit, cut):
            specs = self._executor.boundary(exit, cut)
            self._blank = exit, cut, random_inputs(specs, 1, np.random.default_rng(0))
        self._run_uncounted(*self._blank)

    def _decoded(self, exit: int, cut: int, coded: Coded) -> dict[str, Array]:
        try:
            specs = self._executor.boundary(exit, cut)
            return find_codec(coded.codec).decode(coded.payload, specs, coded.size)
        except OfframpError as error:
            raise BadPayloadError(str(error)) from None

    def _encoded(self, exit: int, cut: int, tensors: Mapping[str, Array], codec: str) -> Coded:
        size = check_tensors(tensors, specs := self._executor.boundary(exit, cut))
        return Coded(codec, find_codec(codec).encode(tensors, specs), size)

    def stop(self) -> None:
        """End a stretch that is under way, and stretch no more."""
        self._stopped.set()


def calibrate(executor: Executor, exits: Sequence[ExitCoefficients]) -> float:
    """How many times longer this host takes for whole exits than their layers on the device are predicted, > 0.

    The median over exits and sizes; a few hundred milliseconds. It also warms the sessions up.
    """
    ratios = []
    rng = np.random.default_rng(0)
    for number, exit in enumerate(exits, start=1):
        specs = executor.boundary(number, 0)
        for size in CALIBRATION_SIZES:
            inputs = random_inputs(specs, size, rng)
            predicted_s = float(exit.layer_s("device", size).sum())
            executor.run_tail(number, 0, inputs)
            for _ in range(CALIBRATION_ROUNDS):
                began_s = time.thread_time()
                executor.run_tail(number, 0, inputs)
                if predicted_s > 0:
                    ratios.append((time.thread_time() - began_s) / predicted_s)
    return max(statistics.median(ratios), 1e-3) if ratios else 1.0
