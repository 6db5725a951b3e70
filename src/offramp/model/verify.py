"""Does a head followed by its tail give what the whole model gives?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from offramp.model.executor import ChainExecutor, WholeModel
from offramp.model.inputs import random_inputs
from offramp.model.tensors import Array

CHECK_SIZES = (1, 3, 10)


def relative_error(found: Array, expected: Array) -> float:
    """Largest absolute difference over the largest absolute value; infinity for other shapes or odd NaNs."""
    if found.shape != expected.shape:
        return float("inf")
    if np.array_equal(found, expected, equal_nan=expected.dtype.kind == "f"):
        return 0.0
    difference = float(np.max(np.abs(found.astype(np.float64) - expected.astype(np.float64))))
    scale = float(np.max(np.abs(expected.astype(np.float64))))
    return difference / scale if np.isfinite(difference) and scale > 0 else float("inf")


def cut_errors(
    executor: ChainExecutor, rng: np.random.Generator, sizes: Sequence[int] = CHECK_SIZES
) -> Iterator[tuple[int, int, float]]:
    """For every loaded exit and each of its cuts, on random inputs: (exit, cut, largest relative error)."""
    whole = WholeModel(executor.model, threads=executor.threads)
    for number in executor.exits:
        cases = []
        for size in sizes:
            inputs = random_inputs(executor.model.inputs, size, rng)
            own = {spec.name: inputs[spec.name] for spec in executor.boundary(number, 0)}
            cases.append((own, whole.run(number, inputs)))
        for cut in range(executor.layers(number) + 1):
            errors = (
                relative_error(executor.run_tail(number, cut, executor.run_head(number, cut, own)), expected)
                for own, expected in cases
            )
            yield number, cut, max(errors)
