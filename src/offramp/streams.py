"""Where tasks come from: arrival processes and task sizes, as data that a scenario file holds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveFloat, PositiveInt, model_validator

from offramp.equations import FloatArray

Probability = Annotated[float, Field(gt=0, le=1)]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Bernoulli(_Value):
    """At most one task a slot, with this probability (Section II): the paper's p."""

    kind: Literal["bernoulli"] = "bernoulli"
    probability: Probability = 0.1

    def instants(self, slot_s: float, rng: np.random.Generator) -> Iterator[float]:
        """Endless ascending arrival instants, each at the start of a slot, from slot 0 on."""
        slot = -1
        while True:
            slot += int(rng.geometric(self.probability))
            yield slot * slot_s


class Poisson(_Value):
    """Independent arrivals at a mean rate, at any instant."""

    kind: Literal["poisson"] = "poisson"
    rate_per_s: PositiveFloat

    def instants(self, slot_s: float, rng: np.random.Generator) -> Iterator[float]:
        """Endless ascending arrival instants; `slot_s` is not used."""
        now_s = 0.0
        while True:
            now_s += float(rng.exponential(1.0 / self.rate_per_s))
            yield now_s


class Bursty(_Value):
    """Two alternating states, calm and burst, each Bernoulli by slot; their lengths are geometric."""

    kind: Literal["bursty"] = "bursty"
    calm_probability: Annotated[float, Field(ge=0, le=1)] = 0.05
    burst_probability: Probability = 0.4
    calm_slots: Annotated[float, Field(ge=1)] = 100.0
    burst_slots: Annotated[float, Field(ge=1)] = 25.0

    def instants(self, slot_s: float, rng: np.random.Generator) -> Iterator[float]:
        """Endless ascending arrival instants, each at the start of a slot; the first state is calm."""
        start = 0
        bursting = False
        while True:
            length = int(rng.geometric(1.0 / (self.burst_slots if bursting else self.calm_slots)))
            probability = self.burst_probability if bursting else self.calm_probability
            hits = np.flatnonzero(rng.random(length) < probability)
            for slot in hits:
                yield (start + int(slot)) * slot_s
            start += length
            bursting = not bursting


class Recorded(_Value):
    """Arrival instants as they were recorded; at the end the recording starts over."""

    kind: Literal["recorded"] = "recorded"
    instants_s: Annotated[tuple[Annotated[FiniteFloat, Field(ge=0)], ...], Field(min_length=1)]
    period_s: PositiveFloat | None = None

    @model_validator(mode="after")
    def _ascending(self) -> Recorded:
        if any(later < earlier for earlier, later in zip(self.instants_s, self.instants_s[1:], strict=False)):
            raise ValueError("instants_s must ascend; sort the recording")
        if self.period_s is not None and self.period_s < self.instants_s[-1]:
            raise ValueError("period_s must be at least the last instant")
        if self.period_s is None and self.instants_s[-1] == 0:
            raise ValueError("instants_s all lie at 0; give period_s, the recording's length")
        return self

    def instants(self, slot_s: float, rng: np.random.Generator) -> Iterator[float]:
        """Endless ascending arrival instants; neither `slot_s` nor `rng` is used."""
        period_s = self.period_s or self.instants_s[-1]
        lap = 0
        while True:
            for instant_s in self.instants_s:
                yield lap * period_s + instant_s
            lap += 1


Arrivals = Annotated[Bernoulli | Poisson | Bursty | Recorded, Field(discriminator="kind")]


class NormalSizes(_Value):
    """Sizes from a normal distribution, rounded, and truncated to low..high (what falls outside is not drawn)."""

    kind: Literal["normal"] = "normal"
    mean: FiniteFloat = 5.5
    sd: PositiveFloat = 2.0
    low: PositiveInt = 1
    high: PositiveInt = 10

    @model_validator(mode="after")
    def _range(self) -> NormalSizes:
        if self.low > self.high:
            raise ValueError(f"low = {self.low} exceeds high = {self.high}")
        if not self._weights().sum() > 0:
            raise ValueError("no size in low..high has a chance worth the name; move mean towards the range")
        return self

    def _weights(self) -> FloatArray:
        edges = np.arange(self.low, self.high + 2) - 0.5
        below = np.array([0.5 * math.erfc(-(edge - self.mean) / (self.sd * math.sqrt(2))) for edge in edges])
        return np.diff(below)

    @property
    def values(self) -> tuple[int, ...]:
        """The sizes that can occur, ascending."""
        return tuple(range(self.low, self.high + 1))

    def probabilities(self) -> FloatArray:
        """Probability of each of `values`."""
        weights = self._weights()
        share: FloatArray = weights / weights.sum()
        return share


class ListedSizes(_Value):
    """Sizes with given weights; all alike without them."""

    kind: Literal["listed"] = "listed"
    values: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    weights: tuple[Annotated[float, Field(ge=0)], ...] | None = None

    @model_validator(mode="after")
    def _lengths(self) -> ListedSizes:
        if self.weights is not None and (len(self.weights) != len(self.values) or sum(self.weights) <= 0):
            raise ValueError("weights must be as many as values and not all 0")
        return self

    def probabilities(self) -> FloatArray:
        """Probability of each of `values`."""
        weights = np.ones(len(self.values)) if self.weights is None else np.array(self.weights, dtype=float)
        share: FloatArray = weights / weights.sum()
        return share


Sizes = Annotated[NormalSizes | ListedSizes, Field(discriminator="kind")]
