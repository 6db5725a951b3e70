"""What was measured of one host running a model, as a file, and the coefficients that two of them give."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from offramp.equations import FloatArray
from offramp.errors import OfframpError
from offramp.profile import CodedCut, ExitCoefficients, Line
from offramp.tables import LayerTable, Side, layer_durations
from offramp.validation import parse_json, read_text

_STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
_Duration = Annotated[float, Field(ge=0)]


class HostDescription(BaseModel):
    """The machine and the software that were measured."""

    model_config = _STRICT

    cpu: str
    cores: Annotated[int, Field(ge=1)]
    machine: str
    system: str
    versions: dict[str, str]


class LayerProfile(BaseModel):
    """Measured time of one layer.

    Attributes:
        seconds: the line that predicts it, fitted to the medians by least absolute relative deviations.
        r2: share of the medians' variance that the line explains.
        residual_quantiles: of measured / predicted - 1 over single runs at all sizes, by name ("p95").
        median_s: median seconds at each of the profile's sizes.
        linear: whether the line predicts the medians, see `offramp.tables.is_linear`.
        table_s: where it does not, seconds at each of the profile's sizes that predict the layer in place of the line;
            the medians, but not falling. Layers without are predicted by their line, whatever `linear` says.
    """

    model_config = _STRICT

    name: str
    seconds: Line
    r2: Annotated[float, Field(le=1)]
    residual_quantiles: dict[str, float]
    median_s: tuple[_Duration, ...]
    linear: bool
    table_s: tuple[_Duration, ...] | None = None

    @model_serializer(mode="wrap")
    def _without_what_it_has_not(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = write(self)
        if self.table_s is None:
            del written["table_s"]  # files without tables stay as they were, to the byte
        return written


class CodecProfile(BaseModel):
    """A codec at one cut of an exit, measured on images.

    Attributes:
        encode_s, decode_s, output_bytes: lines fitted to the medians at the profile's sizes.
        bytes_p95: how far single tasks' bytes are above the line, relative, 95 % quantile.
        lost_accuracy: the exit's accuracy without the codec minus that with it, on the same `images`; below 0
            where chance favours the codec.
    """

    model_config = _STRICT

    cut: Annotated[int, Field(ge=0)]
    codec: Annotated[str, Field(min_length=1, max_length=64)]
    encode_s: Line
    decode_s: Line
    output_bytes: Line
    bytes_p95: float
    lost_accuracy: Annotated[float, Field(ge=-1, le=1)]
    images: Annotated[int, Field(ge=1)]


class ExitProfile(BaseModel):
    """Measured layers 1..l of one exit, the bytes that cross at its cuts 0..l, and codecs for its cuts 0..l-1."""

    model_config = _STRICT

    output: str
    accuracy: Annotated[float, Field(gt=0, le=1)] | None = None
    layers: Annotated[tuple[LayerProfile, ...], Field(min_length=1)]
    output_bytes: tuple[Line, ...]
    codecs: tuple[CodecProfile, ...] = ()

    @model_validator(mode="after")
    def _one_more_cut_than_layers(self) -> ExitProfile:
        if len(self.output_bytes) != len(self.layers) + 1:
            raise ValueError(f"needs {len(self.layers) + 1} rows of output_bytes, one for each cut")
        measured = [(row.cut, row.codec) for row in self.codecs]
        if any(cut >= len(self.layers) for cut, _ in measured) or len(set(measured)) < len(measured):
            raise ValueError(
                f"codecs must be of cuts 0..{len(self.layers) - 1}, one row for each cut and codec"
            )
        return self


class HostProfile(BaseModel):
    """How fast one host runs a model: `offramp.profile/1`.

    Attributes:
        sizes: the numbers of inputs that were measured, ascending.
        threads: threads of each session.
        clock: "processor" if times are the processor time of the one thread, "wall" otherwise.
        repeats: runs of each exit at each size.
        call_s: seconds that a call for a head or a tail takes beside its layers.
        prediction_error: quantiles of the relative error of predictions against new measurements of every
            (exit, cut, size), by name ("p50"), if they were made.
    """

    model_config = _STRICT

    format: Literal["offramp.profile/1"] = "offramp.profile/1"
    model_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    host: HostDescription
    sizes: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
    threads: Annotated[int, Field(ge=1)] = 1
    clock: Literal["processor", "wall"]
    repeats: Annotated[int, Field(ge=1)]
    call_s: Line
    prediction_error: dict[str, float] | None = None
    exits: Annotated[tuple[ExitProfile, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _a_median_for_each_size(self) -> HostProfile:
        for exit in self.exits:
            for layer in exit.layers:
                if len(layer.median_s) != len(self.sizes):
                    raise ValueError(f"layer {layer.name} needs {len(self.sizes)} medians, one for each size")
                if layer.table_s is not None:
                    self._check_table(layer.name, layer.table_s)
        return self

    def _check_table(self, name: str, seconds: tuple[float, ...]) -> None:
        if len(seconds) != len(self.sizes) or len(seconds) < 2:
            raise ValueError(f"the table of layer {name} needs one time for each of two or more sizes")
        if list(seconds) != sorted(seconds) or list(self.sizes) != sorted(set(self.sizes)):
            raise ValueError(f"the table of layer {name} must not fall, and its sizes must ascend")

    def tables(self, number: int, side: Side) -> tuple[LayerTable, ...]:
        """Tables of the layers of exit `number` (1..u) that have one."""
        return tuple(
            LayerTable(side, position, tuple(zip(self.sizes, layer.table_s, strict=True)))
            for position, layer in enumerate(self.exits[number - 1].layers, 1)
            if layer.table_s is not None
        )

    def layer_s(self, number: int, size: float) -> FloatArray:
        """Predicted seconds of each layer of exit `number` (1..u) on this host, without what a call takes."""
        lines = np.array([layer.seconds for layer in self.exits[number - 1].layers])
        return layer_durations(lines, self.tables(number, "device"), "device", size)

    def to_json(self) -> str:
        """The document as it is written to a file."""
        return self.model_dump_json(indent=1) + "\n"


_LEAST_ACCURACY = 1e-6
"""Of an exit that a codec has ruined; Eq. 1 takes none that is 0."""


CONFIDENCES = (0.5, 0.99)
"""Least and greatest probability that a profile's quantiles speak of."""


def check_confidence(confidence: float) -> None:
    """Raises OfframpError unless the probability is one that a profile's quantiles speak of."""
    least, most = CONFIDENCES
    if not least <= confidence <= most:
        raise OfframpError(
            "confidence", confidence, f"in {least}..{most}", "0.95 leaves out one task in twenty"
        )


def residual_excess(profile: HostProfile, confidence: float) -> float:
    """By how much a path may exceed its prediction with this confidence (0.5..0.99), relative to it, >= 0.

    The layers' residual quantiles, interpolated, in proportion to their time; of the exit where that is most.
    Layers do not fall behind all at once, so this is on the safe side.
    """
    size = float(np.median(profile.sizes))
    excesses = []
    for number, exit in enumerate(profile.exits, 1):
        seconds = profile.layer_s(number, size)
        quantiles = [_residual_at(layer, confidence) for layer in exit.layers]
        excesses.append(float(np.average(quantiles, weights=np.maximum(seconds, 1e-12))))
    return max(0.0, *excesses)


def _residual_at(layer: LayerProfile, confidence: float) -> float:
    known = sorted((float(name[1:]) / 100, value) for name, value in layer.residual_quantiles.items())
    if not known:
        return 0.0
    return float(np.interp(confidence, [share for share, _ in known], [value for _, value in known]))


def load_profile(path: Path) -> HostProfile:
    """Read a host profile. Raises OfframpError if it cannot be read or is not one."""
    return parse_json(HostProfile, read_text(path, "profile"), str(path))


def exit_coefficients(
    device: HostProfile,
    edge: HostProfile,
    accuracies: Sequence[float | None] | None = None,
    codecs: Collection[str] = (),
) -> tuple[ExitCoefficients, ...]:
    """Coefficients of each exit for a device and an edge with these profiles.

    What a call takes beside its layers is part of the first layer on the device, since every head has it,
    and of the last one on the edge, since every tail has it. `accuracies` replace the device profile's
    where they are known. `codecs` are offered wherever both profiles have measured them. Raises OfframpError
    if the profiles are of different models, or an accuracy or a codec is in neither.
    """
    if device.model_sha256 != edge.model_sha256:
        raise OfframpError(
            "edge profile",
            edge.model_sha256,
            f"must be of the model {device.model_sha256}",
            "profile the same file",
        )
    shapes = [[(exit.output, len(exit.layers)) for exit in profile.exits] for profile in (device, edge)]
    if shapes[0] != shapes[1]:
        raise OfframpError(
            "edge profile", shapes[1], f"must have the exits {shapes[0]}", "profile both again"
        )
    _check_measured(codecs, device, edge)
    known = [None] * len(device.exits) if accuracies is None else accuracies
    result = []
    for number, (own, other, accuracy) in enumerate(zip(device.exits, edge.exits, known, strict=True), 1):
        accuracy = own.accuracy if accuracy is None else accuracy
        if accuracy is None:
            raise OfframpError(
                f"accuracy of {own.output}", None, "is not known", "run offramp evaluate --data"
            )
        device_s = np.array([layer.seconds for layer in own.layers])
        edge_s = np.array([layer.seconds for layer in other.layers])
        coded = _coded_cuts(own, other, accuracy, codecs)
        tables = (*device.tables(number, "device"), *edge.tables(number, "edge"))
        layers = ExitCoefficients(accuracy, device_s, edge_s, np.array(own.output_bytes), coded, tables)
        result.append(layers.with_calls(device.call_s, edge.call_s))
    return tuple(result)


def measured_codecs(profile: HostProfile) -> frozenset[str]:
    """Names of the codecs that the profile has measured at any cut."""
    return frozenset(row.codec for exit in profile.exits for row in exit.codecs)


def _check_measured(codecs: Collection[str], *profiles: HostProfile) -> None:
    for name in codecs:
        for profile in profiles:
            known = measured_codecs(profile)
            if name not in known:
                raise OfframpError(
                    "codec",
                    name,
                    f"the profile has measured {', '.join(sorted(known)) or 'none'}",
                    "run offramp profile --codecs",
                )


def _coded_cuts(
    own: ExitProfile, other: ExitProfile, accuracy: float, codecs: Collection[str]
) -> tuple[CodedCut, ...]:
    """What the codecs make of an exit's cuts. A codec is not held to be more accurate than no codec."""
    decoded = {(row.cut, row.codec): row.decode_s for row in other.codecs}
    return tuple(
        CodedCut(
            row.cut,
            row.codec,
            max(accuracy - max(row.lost_accuracy, 0.0), _LEAST_ACCURACY),
            row.encode_s,
            decoded[row.cut, row.codec],
            row.output_bytes,
        )
        for row in own.codecs
        if row.codec in codecs and (row.cut, row.codec) in decoded
    )
