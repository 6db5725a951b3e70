"""What can be chosen for a task, and what each choice takes and earns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from offramp import equations
from offramp.equations import BoolArray, FloatArray, IntArray
from offramp.profile import ExitCoefficients
from offramp.task import UNCODED, Decision

StrArray = npt.NDArray[np.str_]
_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True)
class Gain:
    """Parameters of Eq. 1: α (`accuracy_weight`, >= 0) and β (`accuracy_slope`, >= 0)."""

    __pydantic_config__ = _STRICT

    accuracy_weight: Annotated[float, Field(ge=0)] = 0.1
    accuracy_slope: Annotated[float, Field(ge=0)] = 16.0


@dataclass(frozen=True)
class NetworkTerms:
    """What the `network` timing model adds to the paper's: durations in seconds, and the edge's workers.

    Attributes:
        decision_s: from a task's arrival until its device has the decision.
        link_delay_s: one-way delay of the uplink, beside its bandwidth.
        answer_s: from the end of the edge's work until the device has the answer.
        edge_workers: tasks, or batches of tasks, that the edge computes at the same time, >= 1.
        max_batch: tasks waiting at the same cut of the same exit that a worker may run together, >= 1.
    """

    __pydantic_config__ = _STRICT

    decision_s: Annotated[float, Field(ge=0)] = 0.002
    link_delay_s: Annotated[float, Field(ge=0)] = 0.0
    answer_s: Annotated[float, Field(ge=0)] = 0.001
    edge_workers: Annotated[int, Field(ge=1)] = 1
    max_batch: Annotated[int, Field(ge=1)] = 1

    @model_serializer(mode="wrap")
    def _without_batches_of_one(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = write(self)
        if self.max_batch == 1:
            del written["max_batch"]  # files from before there were batches stay as they were, to the byte
        return written


class CutCosts(NamedTuple):
    """What an exit's cuts cost at one size, as they are and with codecs: arrays of one length.

    `head_s` is on an unslowed device; `accuracy` is the exit's with what a codec loses.
    """

    cut: IntArray
    codec: StrArray
    head_s: FloatArray
    output_bytes: FloatArray
    tail_s: FloatArray
    accuracy: FloatArray


def cut_costs(exit: ExitCoefficients, size: int) -> CutCosts:
    """Cuts 0..l as they are, then the exit's coded cuts: encoding follows the head, decoding precedes the tail."""
    head_s = equations.head_durations(exit.layer_s("device", size))
    tail_s = equations.tail_durations(exit.layer_s("edge", size))
    output_bytes = equations.linear(exit.output_bytes, size)
    cut = np.arange(exit.layers + 1)
    plain = np.full(len(cut), UNCODED)
    accuracy = np.full(len(cut), exit.accuracy)
    if not exit.codecs:
        return CutCosts(cut, plain, head_s, output_bytes, tail_s, accuracy)
    coded = np.array([each.cut for each in exit.codecs])
    encode_s, decode_s, coded_bytes = (
        equations.linear(np.array([getattr(each, name) for each in exit.codecs]), size)
        for name in ("device_s", "edge_s", "output_bytes")
    )
    return CutCosts(
        np.concatenate((cut, coded)),
        np.concatenate((plain, np.array([each.codec for each in exit.codecs]))),
        np.concatenate((head_s, head_s[coded] + encode_s)),
        np.concatenate((output_bytes, coded_bytes)),
        np.concatenate((tail_s, decode_s + tail_s[coded])),
        np.concatenate((accuracy, np.array([each.accuracy for each in exit.codecs]))),
    )


def batch_costs(exit: ExitCoefficients, cut: int, parts: Sequence[tuple[str, int]]) -> float:
    """Seconds on the edge for tasks that are run together behind a cut: (codec, size) of each.

    ValueError for a codec that is not there.
    """
    decode_s = [decode_duration(exit, cut, codec, size) for codec, size in parts]
    tail_s = equations.tail_durations(exit.layer_s("edge", sum(size for _, size in parts)))
    return equations.batch_duration(tail_s, cut, np.array(decode_s))


def decode_duration(exit: ExitCoefficients, cut: int, codec: str, size: int) -> float:
    """Seconds that the edge takes to decode a task behind a cut. ValueError for a codec that is not there."""
    decode = {coded.codec: coded.edge_s for coded in exit.codecs if coded.cut == cut} | {UNCODED: (0.0, 0.0)}
    if codec not in decode:
        raise ValueError(f"no codec {codec} at cut {cut}")
    return float(equations.linear(np.array([decode[codec]]), size)[0])


@dataclass(frozen=True, slots=True, eq=False)
class OptionTable:
    """Every (exit, cut, codec) of the model for one kind of device and one size; arrays of one length.

    Exits ascend; of each exit all cuts come first, as they are, and then those with a codec.

    Attributes:
        exit, cut, codec: the choice; exit 1..u, cut 0..l, `UNCODED` or a codec's name.
        head_s, upload_s, tail_s: predicted durations on device, link and edge, seconds; encoding is the device's
            work and decoding the edge's.
        gain: what the choice earns if it finishes in time, Eq. 1.
        accuracy: the exit's accuracy, with what the codec loses.
        local: whether cut = l, so that under `network` the edge has no part in it.
    """

    exit: IntArray
    cut: IntArray
    codec: StrArray
    head_s: FloatArray
    upload_s: FloatArray
    tail_s: FloatArray
    gain: FloatArray
    accuracy: FloatArray
    local: BoolArray
    _rows: dict[Decision, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        choices = zip(self.exit.tolist(), self.cut.tolist(), self.codec.tolist(), strict=True)
        # Of rows that are alike, which no model has, the first counts.
        rows = {Decision(*choice): row for row, choice in reversed(list(enumerate(choices)))}
        object.__setattr__(self, "_rows", rows)

    def __len__(self) -> int:
        return len(self.exit)

    def index(self, exit: int, cut: int, codec: str = UNCODED) -> int:
        """Row of an (exit, cut, codec) of the model; ValueError if the model has none."""
        return self.row_of(Decision(exit, cut, codec))

    def row_of(self, decision: Decision) -> int:
        """Row of a decision that drops nothing; ValueError if it is none of the options."""
        row = self._rows.get(decision)
        if row is None:
            raise ValueError(
                f"no option with exit {decision.exit}, cut {decision.cut} and codec {decision.codec}"
            )
        return row

    def offers(self, decision: Decision) -> bool:
        """Whether a decision is one of the options."""
        return decision in self._rows

    def decision(self, row: int) -> Decision:
        """The decision for a row."""
        return Decision(int(self.exit[row]), int(self.cut[row]), str(self.codec[row]))


@dataclass(frozen=True, eq=False)
class System:
    """Everything a decision needs beside tasks: the model's coefficients, devices, links, edge and gain.

    Attributes:
        exits: u exits, shallowest first.
        device_slowdown: N factors >= 0 on `device_s`.
        bandwidth_bytes_per_s: N uplinks, > 0.
        gain, network: parameters of Eq. 1 and of the `network` timing model.
    """

    exits: tuple[ExitCoefficients, ...]
    device_slowdown: tuple[float, ...]
    bandwidth_bytes_per_s: tuple[float, ...]
    gain: Gain = field(default_factory=Gain)
    network: NetworkTerms = field(default_factory=NetworkTerms)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_tables", lru_cache(maxsize=4096)(self._build))
        object.__setattr__(self, "_at_rates", lru_cache(maxsize=4096)(self._at_rate))
        object.__setattr__(self, "_batches", lru_cache(maxsize=65536)(self._batch))
        object.__setattr__(self, "_crossing", lru_cache(maxsize=256)(self._crossing_bytes))

    @property
    def devices(self) -> int:
        """N."""
        return len(self.device_slowdown)

    @property
    def min_accuracy(self) -> float:
        """A_min of Eq. 1: the least accurate exit's."""
        return min(exit.accuracy for exit in self.exits)

    def kind(self, device: int) -> tuple[float, float]:
        """(slowdown, bandwidth): devices of one kind share their option tables."""
        return self.device_slowdown[device], self.bandwidth_bytes_per_s[device]

    def options(self, device: int, size: int) -> OptionTable:
        """The option table of a device (0..N-1) for a task of `size` inputs; built once for each kind and size."""
        table: OptionTable = self._tables(*self.kind(device), size)  # type: ignore[attr-defined]
        return table

    def options_at(self, device: int, size: int, bandwidth_bytes_per_s: float) -> OptionTable:
        """The same for a link that is believed to carry another rate than the system says."""
        slowdown, own = self.kind(device)
        if bandwidth_bytes_per_s == own:
            return self.options(device, size)
        table: OptionTable = self._at_rates(slowdown, own, size, bandwidth_bytes_per_s)  # type: ignore[attr-defined]
        return table

    def batch_s(self, tasks: Sequence[tuple[Decision, int]]) -> float:
        """Seconds on the edge for decided tasks of so many inputs that are run together: one exit, one cut."""
        first, _ = tasks[0]
        parts = tuple((decision.codec, size) for decision, size in tasks)
        seconds: float = self._batches(first.exit, first.cut, parts)  # type: ignore[attr-defined]
        return seconds

    def _batch(self, exit: int, cut: int, parts: tuple[tuple[str, int], ...]) -> float:
        return batch_costs(self.exits[exit - 1], cut, parts)

    def crossing_bytes(self, size: int) -> FloatArray:
        """Bytes that each row of an option table uploads for a task of `size` inputs."""
        crossing: FloatArray = self._crossing(size)  # type: ignore[attr-defined]
        return crossing

    def _crossing_bytes(self, size: int) -> FloatArray:
        crossing = np.concatenate([cut_costs(exit, size).output_bytes for exit in self.exits])
        crossing.flags.writeable = False
        return crossing

    def _at_rate(self, slowdown: float, own: float, size: int, bandwidth_bytes_per_s: float) -> OptionTable:
        upload_s = equations.upload_duration(self.crossing_bytes(size), bandwidth_bytes_per_s)
        upload_s.flags.writeable = False
        table: OptionTable = self._tables(slowdown, own, size)  # type: ignore[attr-defined]
        return replace(table, upload_s=upload_s)

    def _build(self, slowdown: float, bandwidth_bytes_per_s: float, size: int) -> OptionTable:
        costs = [cut_costs(exit, size) for exit in self.exits]
        lengths = [len(cost.cut) for cost in costs]
        head_s, output_bytes, tail_s, accuracy = (
            np.concatenate([getattr(cost, name) for cost in costs])
            for name in ("head_s", "output_bytes", "tail_s", "accuracy")
        )
        cut = np.concatenate([cost.cut for cost in costs])
        columns = (
            np.repeat(np.arange(1, len(costs) + 1), lengths),
            cut,
            np.concatenate([cost.codec for cost in costs]),
            slowdown * head_s,
            equations.upload_duration(output_bytes, bandwidth_bytes_per_s),
            tail_s,
            equations.gain(accuracy, self.min_accuracy, self.gain.accuracy_weight, self.gain.accuracy_slope),
            accuracy,
            cut == np.repeat([exit.layers for exit in self.exits], lengths),
        )
        for column in columns:
            column.flags.writeable = False
        return OptionTable(*columns)

    def __reduce__(self) -> tuple[type[System], tuple[object, ...]]:
        return System, (
            self.exits,
            self.device_slowdown,
            self.bandwidth_bytes_per_s,
            self.gain,
            self.network,
        )
