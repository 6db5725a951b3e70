"""Latency tables as data: what each layer of each exit costs on the device, on the edge and on the link."""

from __future__ import annotations

from dataclasses import dataclass

from offramp.equations import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class ExitCoefficients:
    """Linear predictions for the l layers of one exit's path (f⁰, f¹, f² of Section II-A).

    Attributes:
        accuracy: share of inputs answered right at this exit, in (0, 1], A_m.
        device_s: (l, 2), slope and intercept in seconds of each layer on an unslowed device.
        edge_s: (l, 2), the same on the edge.
        output_bytes: (l + 1, 2), bytes that cross at each cut; row 0 is the task's own input.
    """

    accuracy: float
    device_s: FloatArray
    edge_s: FloatArray
    output_bytes: FloatArray

    @property
    def layers(self) -> int:
        """l_m: the layers on this exit's path, and its largest cut."""
        return len(self.device_s)
