"""What tasks are drawn from. The defaults are the reference scenario; a file states departures from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from offramp.errors import OfframpError
from offramp.options import Gain, NetworkTerms
from offramp.streams import Arrivals, Bernoulli, NormalSizes, Sizes
from offramp.validation import parse_json, parse_value, read_text

MOST_DEVICES = 10_000_000
"""What is kept of each would not fit into this machine's memory otherwise."""
REFERENCE_SLOT_S = 0.010
REFERENCE_SLOWDOWN = 25.0
"""How many times slower than the profiled host a device of the reference scenario is."""


class Scenario(BaseModel):
    """A family of instances (JSON, `offramp.scenario/1`): arrivals, sizes, deadlines, devices, links, gain.

    Attributes:
        devices, tasks: N and M; devices are drawn evenly for each task.
        slot_s: length of a time slot, seconds.
        k: slots of budget for each input of a task, > 0: budget_s = k · slot_s · size.
        arrivals, sizes: see `offramp.streams`.
        device_slowdown: one factor for all devices, or N.
        bandwidth_bytes_per_s: one uplink for all devices, or N.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal["offramp.scenario/1"] = "offramp.scenario/1"
    devices: Annotated[int, Field(ge=1, le=MOST_DEVICES)] = 3
    tasks: PositiveInt = 100
    slot_s: PositiveFloat = REFERENCE_SLOT_S
    k: PositiveFloat = 3.0
    arrivals: Arrivals = Bernoulli()
    sizes: Sizes = NormalSizes()
    device_slowdown: PositiveFloat | tuple[PositiveFloat, ...] = REFERENCE_SLOWDOWN
    bandwidth_bytes_per_s: PositiveFloat | tuple[PositiveFloat, ...] = 125_000.0
    gain: Gain = Gain()
    network: NetworkTerms = NetworkTerms()

    @model_validator(mode="after")
    def _one_or_each(self) -> Scenario:
        for name in ("device_slowdown", "bandwidth_bytes_per_s"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != self.devices:
                raise ValueError(
                    f"{name} has {len(value)} entries for {self.devices} devices; give one, or N"
                )
        return self

    @property
    def slowdowns(self) -> tuple[float, ...]:
        """Factor of each of the N devices."""
        return _each(self.device_slowdown, self.devices)

    @property
    def bandwidths(self) -> tuple[float, ...]:
        """Uplink of each of the N devices, bytes per second."""
        return _each(self.bandwidth_bytes_per_s, self.devices)

    def budget_s(self, size: int) -> float:
        """τ = k · slot · D, seconds (Section II-A)."""
        return self.k * self.slot_s * size

    def changed(
        self,
        *,
        devices: int | None = None,
        tasks: int | None = None,
        p: float | None = None,
        k: float | None = None,
        slot_s: float | None = None,
        edge_workers: int | None = None,
        max_batch: int | None = None,
    ) -> Scenario:
        """This scenario with some values replaced; `p` makes the arrivals Bernoulli. OfframpError if bad."""
        update: dict[str, object] = {
            name: value
            for name, value in (("devices", devices), ("tasks", tasks), ("k", k), ("slot_s", slot_s))
            if value is not None
        }
        if p is not None:
            if not 0 < p <= 1:
                raise OfframpError("p", p, "must be in (0, 1]", "give a probability")
            update["arrivals"] = {"kind": "bernoulli", "probability": p}
        edge = {"edge_workers": edge_workers, "max_batch": max_batch}
        if given := {name: value for name, value in edge.items() if value is not None}:
            update["network"] = self.model_dump()["network"] | given
        return parse_value(Scenario, self.model_dump() | update, "scenario")


def _each(value: float | tuple[float, ...], devices: int) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value,) * devices


def load_scenario(path: Path | None) -> Scenario:
    """The scenario of a file, or the reference scenario. OfframpError if the file is bad."""
    if path is None:
        return Scenario()
    return parse_json(Scenario, read_text(path, "scenario"), str(path))
