"""Does a head followed by its tail give what the whole model gives, in the time that was predicted?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from offramp.equations import FloatArray, linear
from offramp.host_profile import HostProfile
from offramp.model.executor import ChainExecutor, WholeModel
from offramp.model.inputs import random_inputs
from offramp.model.profiler import clock_for
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


def prediction_errors(
    executor: ChainExecutor, profile: HostProfile, rng: np.random.Generator, repeats: int
) -> Iterator[FloatArray]:
    """How far predictions are from new measurements: |predicted / measured - 1| of each (exit, cut, size).

    Predicted is head + tail on this host, measured the median of both over the repeats so far; gives an
    array after each repeat. Exits, cuts and sizes are visited in a new random order each time.
    """
    clock = clock_for(executor)
    places = [
        (number, cut, size)
        for number in executor.exits
        for cut in range(executor.layers(number) + 1)
        for size in profile.sizes
    ]
    inputs = {size: random_inputs(executor.model.inputs, size, rng) for size in profile.sizes}
    predicted = np.array([_predicted(profile, *place) for place in places])
    measured = np.empty((repeats, len(places)))
    for repeat in range(repeats):
        for index in rng.permutation(len(places)):
            number, cut, size = places[index]
            own = {spec.name: inputs[size][spec.name] for spec in executor.boundary(number, 0)}
            begin = clock()
            executor.run_tail(number, cut, executor.run_head(number, cut, own))
            measured[repeat, index] = clock() - begin
        yield np.abs(predicted / np.median(measured[: repeat + 1], axis=0) - 1)


def _predicted(profile: HostProfile, number: int, cut: int, size: int) -> float:
    layers = profile.layer_s(number, size)
    calls = (cut > 0) + (cut < len(layers))
    return float(np.sum(layers) + calls * linear(np.array([profile.call_s]), size)[0])
