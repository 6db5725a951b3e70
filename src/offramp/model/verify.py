"""Does a head followed by its tail give what the whole model gives?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from offramp.model.executor import ChainExecutor, WholeModel
from offramp.model.inputs import random_inputs
from offramp.model.tensors import relative_error

CHECK_SIZES = (1, 3, 10)


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
