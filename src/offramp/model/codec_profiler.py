"""Measures codecs on images: how long they take at each cut, how many bytes are left, and what accuracy they cost."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from offramp.equations import FloatArray, linear
from offramp.host_profile import CodecProfile, HostProfile
from offramp.model.codecs import CODECS, Codec, codecs_for
from offramp.model.evaluate import labels_of
from offramp.model.executor import ChainExecutor
from offramp.model.fit import fit_line
from offramp.model.inputs import image_inputs
from offramp.model.profiler import MIN_REPEATS, USUAL_REPEATS, clock_for
from offramp.model.tensors import Array, check_tensors

LEAST_SAVING = 0.05
"""A codec that saves a smaller share of a cut's bytes is not worth a row."""
TASK_IMAGES = 10
"""Images that cross together when accuracy is measured: some codecs scale all inputs of a task alike."""

Place = tuple[int, int]
Coded = tuple[int, int, str]
"""Exit, cut, and a codec's name."""


@dataclass(slots=True)
class CodecMeasurements:
    """What was measured at each place and codec; lists of one list for each size, in seconds and in bytes.

    Exits that share a cut share what was measured there: `places` holds the first of them.

    Attributes:
        host: measured over predicted times of whole exits in between, where a profile predicts them.
    """

    sizes: tuple[int, ...]
    places: dict[Place, Place]
    encode_s: dict[Coded, list[list[float]]] = field(default_factory=dict)
    decode_s: dict[Coded, list[list[float]]] = field(default_factory=dict)
    output_bytes: dict[Coded, list[list[float]]] = field(default_factory=dict)
    host: list[float] = field(default_factory=list)
    repeats: int = 0


def coded_places(executor: ChainExecutor, codecs: Collection[str]) -> dict[Place, Place]:
    """Each (exit, cut) where some codec makes a difference, and the first one at which the same tensors cross."""
    first: dict[tuple[str, ...], Place] = {}
    places = {}
    for number in executor.exits:
        for cut in range(executor.layers(number)):
            specs = executor.boundary(number, cut)
            if codecs_for(specs, codecs):
                names = tuple(sorted(spec.name for spec in specs))
                places[number, cut] = first.setdefault(names, (number, cut))
    return places


def measure_codecs(
    executor: ChainExecutor,
    images: NDArray[np.uint8],
    rng: np.random.Generator,
    codecs: Collection[str],
    *,
    sizes: Sequence[int],
    beside: HostProfile | None = None,
    repeats: int = USUAL_REPEATS,
    limit_s: float | None = None,
    clock: Callable[[], float] | None = None,
) -> Iterator[CodecMeasurements]:
    """Encode and decode what crosses for random images; gives the measurements so far after each repeat.

    Each repeat visits sizes and codecs in a new order. `beside` is a profile that the times are to be compared with:
    then a whole exit is timed, too, each time. After `limit_s` seconds it stops, but not before MIN_REPEATS.
    """
    clock = clock or clock_for(executor)
    found = CodecMeasurements(tuple(sizes), coded_places(executor, codecs))
    started = time.monotonic()
    for repeat in itertools.count(-1):
        for index in rng.permutation(len(sizes)):
            chosen = images[rng.integers(0, len(images), sizes[index])]
            inputs = image_inputs(chosen, executor.model.inputs)
            for number, cut in dict.fromkeys(found.places.values()):
                own = _own(executor, number, inputs)
                useful = codecs_for(executor.boundary(number, cut), codecs)
                for codec in (useful[place] for place in rng.permutation(len(useful))):
                    timed = _timed(codec, executor, (number, cut), own, clock)
                    if repeat >= 0:
                        _keep(found, (number, cut, codec.name), int(index), timed)
            if beside is not None and repeat >= 0:
                found.host.append(_host_factor(executor, beside, inputs, sizes[index], rng, clock))
        if repeat < 0:
            continue
        found.repeats = repeat + 1
        yield found
        late = limit_s is not None and time.monotonic() - started >= limit_s
        if found.repeats >= repeats or (late and found.repeats >= MIN_REPEATS):
            return


def _timed(
    codec: Codec,
    executor: ChainExecutor,
    place: Place,
    inputs: Mapping[str, Array],
    clock: Callable[[], float],
) -> tuple[float, float, int]:
    """Seconds to encode and to decode, and the bytes in between, as it is done in the runtime.

    There a head comes right before the encoding, and other work before the decoding. With what it needs still in the
    processor's caches a codec takes a half to a quarter of that.
    """
    specs = executor.boundary(*place)
    crossing = executor.run_head(*place, inputs)
    begin = clock()
    payload = codec.encode(crossing, specs)
    encode_s = clock() - begin
    executor.run_tail(*place, crossing)
    begin = clock()
    codec.decode(payload, specs, check_tensors(crossing, specs))
    return encode_s, clock() - begin, len(payload)


def _keep(found: CodecMeasurements, place: Coded, index: int, timed: tuple[float, float, int]) -> None:
    for store, value in zip((found.encode_s, found.decode_s, found.output_bytes), timed, strict=True):
        store.setdefault(place, [[] for _ in found.sizes])[index].append(value)


def _host_factor(
    executor: ChainExecutor,
    profile: HostProfile,
    inputs: Mapping[str, Array],
    size: int,
    rng: np.random.Generator,
    clock: Callable[[], float],
) -> float:
    number = int(rng.choice(executor.exits))
    own = _own(executor, number, inputs)
    begin = clock()
    executor.run(number, own)
    measured_s = clock() - begin
    call_s = linear(np.array([profile.call_s]), size)
    predicted_s = float(profile.layer_s(number, size).sum() + call_s[0])
    return measured_s / max(predicted_s, 1e-9)


def _own(executor: ChainExecutor, number: int, inputs: Mapping[str, Array]) -> dict[str, Array]:
    return {spec.name: inputs[spec.name] for spec in executor.boundary(number, 0)}


def count_right_coded(
    executor: ChainExecutor, images: NDArray[np.uint8], labels: NDArray[np.int64], codecs: Collection[str]
) -> Iterator[tuple[int, dict[int, int], dict[Coded, int]]]:
    """After each task: images done, and how many of them each exit has right, plain and with each lossy codec.

    A lossless codec changes nothing, and compression loses nothing: only quantisers are run, under the name of
    the codec without compression.
    """
    quantised = [name for name in dict.fromkeys(_quantised(name) for name in codecs) if name in CODECS]
    places = coded_places(executor, quantised)
    right = dict.fromkeys(executor.exits, 0)
    coded: dict[Coded, int] = {}
    for start in range(0, len(images), TASK_IMAGES):
        inputs = image_inputs(images[start : start + TASK_IMAGES], executor.model.inputs)
        truth = labels[start : start + TASK_IMAGES]
        crossed: dict[Place, dict[str, dict[str, Array]]] = {}
        for number, cut in places:
            shared = places[number, cut]
            if shared not in crossed:
                crossed[shared] = _arrivals(executor, shared, inputs, len(truth), quantised)
            for name, arrived in crossed[shared].items():
                answers = labels_of(executor.run_tail(number, cut, arrived))
                place = (number, cut, name)
                coded[place] = coded.get(place, 0) + int(np.sum(answers == truth))
        for number, logits in executor.run_exits(inputs).items():
            right[number] += int(np.sum(labels_of(logits) == truth))
        yield start + len(truth), dict(right), dict(coded)


def _quantised(name: str) -> str:
    return name.partition("+")[0]


def _arrivals(
    executor: ChainExecutor,
    place: Place,
    inputs: Mapping[str, Array],
    size: int,
    codecs: Sequence[str],
) -> dict[str, dict[str, Array]]:
    """What each codec makes of the tensors that cross."""
    specs = executor.boundary(*place)
    crossing = executor.run_head(*place, _own(executor, place[0], inputs))
    return {
        codec.name: codec.decode(codec.encode(crossing, specs), specs, size)
        for codec in codecs_for(specs, codecs)
    }


def codec_rows(
    executor: ChainExecutor,
    found: CodecMeasurements,
    images: int,
    right: Mapping[int, int],
    coded: Mapping[Coded, int],
) -> dict[int, tuple[CodecProfile, ...]]:
    """Rows of each exit's profile, for codecs that save at least `LEAST_SAVING` of the bytes at the largest size.

    Times are divided by how much slower than the profile's the host was while they were measured.
    """
    factor = float(np.median(found.host)) if found.host else 1.0
    rows: dict[int, list[CodecProfile]] = {number: [] for number in executor.exits}
    for (number, cut), shared in found.places.items():
        plain_bytes = executor.model.exit(number).cut_bytes[cut] * found.sizes[-1]
        for name in CODECS:
            place = (*shared, name)
            if place not in found.output_bytes:
                continue
            line, p95 = _bytes_line(found.sizes, found.output_bytes[place])
            if line[0] * found.sizes[-1] + line[1] > (1 - LEAST_SAVING) * plain_bytes:
                continue
            kept = coded.get((number, cut, _quantised(name)), right[number])
            rows[number].append(
                CodecProfile(
                    cut=cut,
                    codec=name,
                    encode_s=_time_line(found.sizes, found.encode_s[place], factor),
                    decode_s=_time_line(found.sizes, found.decode_s[place], factor),
                    output_bytes=line,
                    bytes_p95=p95,
                    lost_accuracy=(right[number] - kept) / images,
                    images=images,
                )
            )
    return {number: tuple(found_rows) for number, found_rows in rows.items()}


def with_codecs(profile: HostProfile, rows: Mapping[int, tuple[CodecProfile, ...]]) -> HostProfile:
    """The profile with these rows in place of its own; exits that were not measured lose theirs."""
    exits = tuple(
        exit.model_copy(update={"codecs": rows.get(number, ())})
        for number, exit in enumerate(profile.exits, 1)
    )
    return profile.model_copy(update={"exits": exits})


def _time_line(
    sizes: Sequence[int], samples: Sequence[Sequence[float]], factor: float
) -> tuple[float, float]:
    medians = np.array([np.median(at_size) for at_size in samples]) / factor
    return fit_line(_floats(sizes), np.maximum(medians, 1e-9))


def _bytes_line(
    sizes: Sequence[int], samples: Sequence[Sequence[float]]
) -> tuple[tuple[float, float], float]:
    medians = np.array([np.median(at_size) for at_size in samples])
    line = fit_line(_floats(sizes), medians)
    relative = np.concatenate(
        [
            np.array(at_size) / (line[0] * size + line[1]) - 1
            for size, at_size in zip(sizes, samples, strict=True)
        ]
    )
    return line, float(np.quantile(relative, 0.95))


def _floats(sizes: Sequence[int]) -> FloatArray:
    return np.array(sizes, dtype=np.float64)
