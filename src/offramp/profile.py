"""Latency tables as data: what each layer of each exit costs on the device, on the edge and on the link."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

from pydantic import Field

from offramp.equations import FloatArray
from offramp.tables import LayerTable, Side, layer_durations
from offramp.task import UNCODED

_Duration = Annotated[float, Field(ge=0)]
Line = tuple[_Duration, _Duration]
"""Slope for each input and intercept of a duration in seconds, or of a number of bytes."""


@dataclass(frozen=True, slots=True)
class CodedCut:
    """What a codec makes of one cut of an exit. It widens the choice; the layers' coefficients stay as they are.

    Attributes:
        cut: 0..l-1; where nothing crosses there is nothing to encode.
        codec: its name, see `offramp.model.codecs`.
        accuracy: of the exit when its tensors cross like this, in (0, 1].
        device_s, edge_s: slope and intercept in seconds of encoding on an unslowed device and of decoding.
        output_bytes: slope and intercept of the bytes that cross, in place of the exit's own at this cut.
    """

    cut: int
    codec: str
    accuracy: float
    device_s: Line
    edge_s: Line
    output_bytes: Line


@dataclass(frozen=True, slots=True, eq=False)
class ExitCoefficients:
    """Predictions for the l layers of one exit's path (f⁰, f¹, f² of Section II-A): lines, and tables for some.

    Attributes:
        accuracy: share of inputs answered right at this exit, in (0, 1], A_m.
        device_s: (l, 2), slope and intercept in seconds of each layer on an unslowed device.
        edge_s: (l, 2), the same on the edge.
        output_bytes: (l + 1, 2), bytes that cross at each cut; row 0 is the task's own input.
        codecs: other ways for what crosses, beside crossing as it is.
        tables: of layers that no line predicts, at most one a side and layer; their lines are for who knows no tables.
    """

    accuracy: float
    device_s: FloatArray
    edge_s: FloatArray
    output_bytes: FloatArray
    codecs: tuple[CodedCut, ...] = ()
    tables: tuple[LayerTable, ...] = ()

    @property
    def layers(self) -> int:
        """l_m: the layers on this exit's path, and its largest cut."""
        return len(self.device_s)

    def layer_s(self, side: Side, size: float) -> FloatArray:
        """Seconds of each layer for `size` inputs, shape (l,), on an unslowed device or on the edge."""
        lines = self.device_s if side == "device" else self.edge_s
        return layer_durations(lines, self.tables, side, size)

    def accuracy_with(self, cut: int, codec: str) -> float:
        """The exit's accuracy when what crosses at a cut travels in a codec; ValueError if that is no choice."""
        if codec == UNCODED:
            return self.accuracy
        for coded in self.codecs:
            if (coded.cut, coded.codec) == (cut, codec):
                return coded.accuracy
        raise ValueError(f"no codec {codec} at cut {cut}")

    def to_dict(self) -> dict[str, Any]:
        """As an instance file has it; without `codecs` and `tables` where there are none."""
        value: dict[str, Any] = {
            "accuracy": self.accuracy,
            "device_s": self.device_s.tolist(),
            "edge_s": self.edge_s.tolist(),
            "output_bytes": self.output_bytes.tolist(),
        }
        if self.codecs:
            value["codecs"] = [asdict(coded) for coded in self.codecs]
        if self.tables:
            value["tables"] = [asdict(table) for table in self.tables]
        return value

    def with_calls(self, device_s: Line, edge_s: Line) -> ExitCoefficients:
        """The same exit with what a task takes on a side beside its layers, as slope and intercept in seconds.

        It is put on the first layer on the device, since every head has it, and on the last one on the edge, since
        every tail has it.
        """
        device, edge = self.device_s.copy(), self.edge_s.copy()
        device[0] += device_s
        edge[-1] += edge_s
        lines = {("device", 1): device_s, ("edge", self.layers): edge_s}
        tables = tuple(
            table.with_line(lines.get((table.side, table.layer), (0.0, 0.0))) for table in self.tables
        )
        return replace(self, device_s=device, edge_s=edge, tables=tables)

    def with_edge_factor(self, factor: float) -> ExitCoefficients:
        """The same exit on an edge that takes `factor` times as long."""
        codecs = tuple(
            replace(coded, edge_s=(factor * coded.edge_s[0], factor * coded.edge_s[1]))
            for coded in self.codecs
        )
        tables = tuple(table.scaled(factor) if table.side == "edge" else table for table in self.tables)
        return replace(self, edge_s=self.edge_s * factor, codecs=codecs, tables=tables)
