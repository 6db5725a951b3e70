"""What can be chosen for a task, and what each choice takes and earns."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Annotated

import numpy as np
from pydantic import ConfigDict, Field

from offramp import equations
from offramp.equations import BoolArray, FloatArray, IntArray
from offramp.profile import ExitCoefficients

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
        edge_workers: tasks that the edge computes at the same time, >= 1.
    """

    __pydantic_config__ = _STRICT

    decision_s: Annotated[float, Field(ge=0)] = 0.002
    link_delay_s: Annotated[float, Field(ge=0)] = 0.0
    answer_s: Annotated[float, Field(ge=0)] = 0.001
    edge_workers: Annotated[int, Field(ge=1)] = 1


@dataclass(frozen=True, slots=True, eq=False)
class OptionTable:
    """Every (exit, cut) of the model for one kind of device and one size; arrays of one length, exits ascending.

    Attributes:
        exit, cut: the choice; exit 1..u, cut 0..l.
        head_s, upload_s, tail_s: predicted durations on device, link and edge, seconds.
        gain: what the choice earns if it finishes in time, Eq. 1.
        accuracy: the exit's accuracy.
        local: whether cut = l, so that under `network` the edge has no part in it.
    """

    exit: IntArray
    cut: IntArray
    head_s: FloatArray
    upload_s: FloatArray
    tail_s: FloatArray
    gain: FloatArray
    accuracy: FloatArray
    local: BoolArray

    def __len__(self) -> int:
        return len(self.exit)

    def index(self, exit: int, cut: int) -> int:
        """Row of an (exit, cut) of the model; ValueError if the model has none."""
        found = np.flatnonzero((self.exit == exit) & (self.cut == cut))
        if not len(found):
            raise ValueError(f"no option with exit {exit} and cut {cut}")
        return int(found[0])


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

    def crossing_bytes(self, size: int) -> FloatArray:
        """Bytes that each row of an option table uploads for a task of `size` inputs."""
        crossing: FloatArray = self._crossing(size)  # type: ignore[attr-defined]
        return crossing

    def _crossing_bytes(self, size: int) -> FloatArray:
        crossing = np.concatenate([equations.linear(exit.output_bytes, size) for exit in self.exits])
        crossing.flags.writeable = False
        return crossing

    def _at_rate(self, slowdown: float, own: float, size: int, bandwidth_bytes_per_s: float) -> OptionTable:
        upload_s = equations.upload_duration(self.crossing_bytes(size), bandwidth_bytes_per_s)
        upload_s.flags.writeable = False
        table: OptionTable = self._tables(slowdown, own, size)  # type: ignore[attr-defined]
        return replace(table, upload_s=upload_s)

    def _build(self, slowdown: float, bandwidth_bytes_per_s: float, size: int) -> OptionTable:
        exits, cuts, heads, uploads, tails, layers = [], [], [], [], [], []
        for number, exit in enumerate(self.exits, start=1):
            cut = np.arange(exit.layers + 1)
            cuts.append(cut)
            exits.append(np.full(len(cut), number))
            layers.append(np.full(len(cut), exit.layers))
            heads.append(slowdown * equations.head_durations(equations.linear(exit.device_s, size)))
            tails.append(equations.tail_durations(equations.linear(exit.edge_s, size)))
            uploads.append(
                equations.upload_duration(equations.linear(exit.output_bytes, size), bandwidth_bytes_per_s)
            )
        exit_column, cut_column = np.concatenate(exits), np.concatenate(cuts)
        accuracy = np.array([exit.accuracy for exit in self.exits])[exit_column - 1]
        gain = equations.gain(
            accuracy, self.min_accuracy, self.gain.accuracy_weight, self.gain.accuracy_slope
        )
        columns = (
            exit_column,
            cut_column,
            np.concatenate(heads),
            np.concatenate(uploads),
            np.concatenate(tails),
            gain,
            accuracy,
            cut_column == np.concatenate(layers),
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
