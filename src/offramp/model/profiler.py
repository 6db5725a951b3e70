"""Measures how long each layer takes on this host, as it is run: block by block in the chain of an exit."""

from __future__ import annotations

import itertools
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime as ort

from offramp import __version__
from offramp.equations import FloatArray
from offramp.errors import OfframpError
from offramp.host_profile import ExitProfile, HostDescription, HostProfile, LayerProfile
from offramp.model.executor import ChainExecutor
from offramp.model.fit import fit_line, r_squared
from offramp.model.inputs import random_inputs
from offramp.model.tensors import Array
from offramp.tables import is_linear, rising

DEFAULT_SIZES = tuple(range(1, 11))
USUAL_REPEATS, USUAL_S = 30, 8.0
MIN_REPEATS = 3
READINGS = 1001
# Quantiles of the relative residuals that a planning margin may be taken from.
RESIDUAL_QUANTILES = (0.05, 0.5, 0.9, 0.95, 0.99)


class Call:
    """Reads the clock during one call for a head or a tail: at its begin, before each block, and at its end.

    `reading_s`: what a reading takes, by which every duration between two is longer than what is measured.
    """

    def __init__(self, clock: Callable[[], float], reading_s: float = 0.0) -> None:
        self._clock = clock
        self._reading_s = reading_s
        self.blocks: list[int] = []
        self.begin()

    def begin(self) -> None:
        """The call starts now."""
        self._instants = [self._clock()]

    def start(self, block: int) -> None:
        """A block is about to run."""
        self.blocks.append(block)
        self._instants.append(self._clock())

    def end(self) -> None:
        """The call is done."""
        self._instants.append(self._clock())

    @property
    def durations_s(self) -> list[float]:
        """What came before the first block, and then each block, in seconds."""
        return [max(0.0, b - a - self._reading_s) for a, b in itertools.pairwise(self._instants)]


def reading_s(clock: Callable[[], float]) -> float:
    """What a `Call` takes for a reading of a clock, in seconds: half a microsecond, and blocks may take few."""
    call = Call(clock)
    for _ in range(READINGS):
        call.start(0)
    return float(np.median(call.durations_s))


@dataclass(slots=True)
class Measurements:
    """Durations in seconds: of each block by its index, and of a call before its blocks, at each size."""

    sizes: tuple[int, ...]
    blocks: dict[int, list[list[float]]]
    calls: list[list[float]]
    repeats: int = 0
    _position: dict[int, int] = field(default_factory=dict)

    @classmethod
    def empty(cls, sizes: Sequence[int], blocks: Sequence[int]) -> Measurements:
        """No measurement yet, for these sizes and blocks."""
        position = {size: i for i, size in enumerate(sizes)}
        return cls(tuple(sizes), {b: [[] for _ in sizes] for b in blocks}, [[] for _ in sizes], 0, position)

    def add(self, size: int, call: Call) -> None:
        """Keep what a call of at least one block took."""
        i = self._position[size]
        before, *blocks = call.durations_s
        self.calls[i].append(before)
        for block, seconds in zip(call.blocks, blocks, strict=True):
            self.blocks[block][i].append(seconds)


def clock_for(executor: ChainExecutor) -> Callable[[], float]:
    """What to measure a chain with: its thread's processor time, or wall time if sessions have more threads.

    On a shared host the processor time leaves out the time that others take.
    """
    return time.thread_time if executor.threads == 1 else time.perf_counter


def measure(
    executor: ChainExecutor,
    rng: np.random.Generator,
    *,
    sizes: Sequence[int] = DEFAULT_SIZES,
    repeats: int | None = None,
    limit_s: float | None = None,
    clock: Callable[[], float] | None = None,
) -> Iterator[Measurements]:
    """Run every exit at every size `repeats` times; gives the measurements so far after each repeat.

    Each repeat visits exits and sizes in a new random order, so a slow spell of the host touches them all
    alike; each exit is run as a head and a tail about a random cut. The clock is `clock_for` the executor by
    default. After `limit_s` seconds it stops, but not before MIN_REPEATS; without `repeats` it goes on to
    USUAL_REPEATS and, if that was quick, for USUAL_S, so that moments do not count for much. One repeat
    before is for warming up and is not kept.
    """
    each_s = 0.0 if clock is not None else reading_s(clock_for(executor))
    clock = clock or clock_for(executor)
    model = executor.model
    found = Measurements.empty(sizes, sorted({b for n in executor.exits for b in model.exit(n).blocks}))
    plan = [(number, size) for number in executor.exits for size in sizes]
    inputs = {place: random_inputs(model.boundary(place[0], 0), place[1], rng) for place in plan}
    started = time.monotonic()
    for repeat in itertools.count(-1):
        for index in rng.permutation(len(plan)):
            number, size = plan[index]
            cut = int(rng.integers(0, executor.layers(number) + 1))
            calls = _timed_split(executor, number, cut, inputs[plan[index]], clock, each_s)
            if repeat >= 0:
                for call in calls:
                    found.add(size, call)
        if repeat < 0:
            continue
        found.repeats = repeat + 1
        yield found
        elapsed_s = time.monotonic() - started
        enough = found.repeats >= (repeats or USUAL_REPEATS) and (repeats is not None or elapsed_s >= USUAL_S)
        if enough or (limit_s is not None and found.repeats >= MIN_REPEATS and elapsed_s >= limit_s):
            return


def _timed_split(
    executor: ChainExecutor,
    number: int,
    cut: int,
    inputs: Mapping[str, Array],
    clock: Callable[[], float],
    each_s: float,
) -> list[Call]:
    """Run a head and then its tail; at the first and at the last cut one of them runs no block."""
    head, tail = Call(clock, each_s), Call(clock, each_s)
    crossing = executor.run_head(number, cut, inputs, on_block=head.start)
    head.end()
    tail.begin()
    executor.run_tail(number, cut, crossing, on_block=tail.start)
    tail.end()
    return [call for call in (head, tail) if call.blocks]


def build_profile(
    executor: ChainExecutor, found: Measurements, accuracies: Sequence[float | None]
) -> HostProfile:
    """Fit every layer's line, with a table where it is none; `accuracies` of all the model's exits.

    Raises OfframpError without a repeat.
    """
    model = executor.model
    if found.repeats < 1:
        raise OfframpError("repeats", found.repeats, "must be at least 1")
    sizes = np.array(found.sizes, dtype=np.float64)
    exits = []
    for exit, accuracy in zip(model.exits, accuracies, strict=True):
        layers = tuple(
            _layer(layer.name, sizes, [found.blocks[block] for block in layer.blocks])
            for layer in exit.layers
        )
        output_bytes = tuple((float(count), 0.0) for count in exit.cut_bytes)
        exits.append(
            ExitProfile(output=exit.output, accuracy=accuracy, layers=layers, output_bytes=output_bytes)
        )
    calls = np.array([_typical(samples) for samples in found.calls])
    return HostProfile(
        model_sha256=model.sha256,
        host=describe_host(),
        sizes=found.sizes,
        threads=executor.threads,
        clock="processor" if executor.threads == 1 else "wall",
        repeats=found.repeats,
        call_s=fit_line(sizes, np.maximum(calls, 1e-9)),
        exits=tuple(exits),
    )


def _typical(samples: Sequence[float]) -> float:
    return float(np.median(samples))


def _layer(name: str, sizes: FloatArray, blocks: Sequence[Sequence[Sequence[float]]]) -> LayerProfile:
    """A layer of one or more blocks; blocks are fitted apart, so that exits that share one agree on it."""
    medians = np.zeros(len(sizes))
    slope = intercept = 0.0
    for samples in blocks:
        typical = np.maximum([_typical(at_size) for at_size in samples], 1e-9)
        line = fit_line(sizes, typical)
        medians += typical
        slope, intercept = slope + line[0], intercept + line[1]
    line = (slope, intercept)
    straight = is_linear(line, sizes, medians)
    table_s = None if straight else rising(medians)
    predicted = slope * sizes + intercept if table_s is None else np.array(table_s)
    residuals = np.concatenate(
        [np.array(_sums(blocks, i)) / seconds - 1.0 for i, seconds in enumerate(predicted)]
    )
    quantiles = np.quantile(residuals, RESIDUAL_QUANTILES)
    return LayerProfile(
        name=name,
        seconds=line,
        r2=r_squared(line, sizes, medians),
        residual_quantiles={
            f"p{round(100 * q):02d}": float(value)
            for q, value in zip(RESIDUAL_QUANTILES, quantiles, strict=True)
        },
        median_s=tuple(float(m) for m in medians),
        linear=straight,
        table_s=table_s,
    )


def _sums(blocks: Sequence[Sequence[Sequence[float]]], index: int) -> list[float]:
    """Durations of the layer in single runs at one size: sums over its blocks, as far as all were run."""
    return [sum(run) for run in zip(*(samples[index] for samples in blocks), strict=False)]


def describe_host() -> HostDescription:
    """This machine and the software that decides its speed."""
    return HostDescription(
        cpu=_cpu_name(),
        cores=os.cpu_count() or 1,
        machine=platform.machine(),
        system=f"{platform.system()} {platform.release()}",
        versions={
            "python": platform.python_version(),
            "onnxruntime": ort.__version__,
            "numpy": np.__version__,
            "offramp": __version__,
        },
    )


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name") and ":" in line)
    return next(names, platform.processor() or "unknown")
