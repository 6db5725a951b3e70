"""Computing: parts of exits on this machine, stretched where it stands for a slower one, and its measured speed."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from offramp import equations
from offramp.model.inputs import random_inputs
from offramp.model.tensors import Array, TensorSpec
from offramp.profile import ExitCoefficients

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


class Processor:
    """Runs parts of exits, each `stretch` >= 1 times as long as it keeps this thread's processor busy.

    Only processor time is stretched: what another process takes from us is not multiplied.
    """

    def __init__(self, executor: Executor, stretch: float = 1.0) -> None:
        self._executor = executor
        self._stretch = stretch
        self._stopped = threading.Event()

    def run(
        self, exit: int, start: int, stop: int, tensors: Mapping[str, Array]
    ) -> tuple[dict[str, Array], float]:
        """Layers start+1..stop on what crosses at `start`: what crosses at `stop`, and the seconds it took.

        One of `start` = 0 and `stop` = l must hold.
        """
        began_s, busy_s = time.perf_counter(), time.thread_time()
        if start == 0:
            made = self._executor.run_head(exit, stop, tensors)
        else:
            output = self._executor.boundary(exit, stop)[0].name
            made = {output: self._executor.run_tail(exit, start, tensors)}
        due_s = began_s + self._stretch * (time.thread_time() - busy_s)
        if self._stretch > 1.0 and (left_s := due_s - time.perf_counter()) > 0:
            self._stopped.wait(left_s)
        return made, time.perf_counter() - began_s

    def stop(self) -> None:
        """End a stretch that is under way, and stretch no more."""
        self._stopped.set()


def calibrate(executor: Executor, exits: Sequence[ExitCoefficients]) -> float:
    """How many times longer this host takes for whole exits than `device_s` says, > 0.

    The median over exits and sizes; a few hundred milliseconds. It also warms the sessions up.
    """
    ratios = []
    rng = np.random.default_rng(0)
    for number, exit in enumerate(exits, start=1):
        specs = executor.boundary(number, 0)
        for size in CALIBRATION_SIZES:
            inputs = random_inputs(specs, size, rng)
            predicted_s = float(equations.linear(exit.device_s, size).sum())
            executor.run_tail(number, 0, inputs)
            for _ in range(CALIBRATION_ROUNDS):
                began_s = time.thread_time()
                executor.run_tail(number, 0, inputs)
                if predicted_s > 0:
                    ratios.append((time.thread_time() - began_s) / predicted_s)
    return max(statistics.median(ratios), 1e-3) if ratios else 1.0
