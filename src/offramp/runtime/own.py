"""What a device knows of itself: its speed, its link and its options."""

from __future__ import annotations

from collections.abc import Sequence

from offramp.options import Gain, NetworkTerms, OptionTable, System
from offramp.profile import ExitCoefficients
from offramp.runtime.forecast import RunningSpeed


class OwnSystem:
    """One device as a `System`, which follows the speed that is measured.

    `bandwidth_bytes_per_s` is what its link is taken for: as declared, until an edge says what it sees. `version` grows
    with every change of its speed or its gain, and its options are others then.
    """

    def __init__(
        self,
        exits: Sequence[ExitCoefficients],
        slowdown: float,
        bandwidth_bytes_per_s: float,
        link_delay_s: float = 0.0,
    ) -> None:
        self._exits = tuple(exits)
        self.speed = RunningSpeed(slowdown)
        self._declared = bandwidth_bytes_per_s
        self.bandwidth_bytes_per_s = bandwidth_bytes_per_s
        self.link_delay_s = link_delay_s
        self._gain = Gain()
        self.version = 0
        self._system = self._build()

    def _build(self) -> System:
        self.version += 1
        return System(
            self._exits,
            (self.speed.factor,),
            (self._declared,),
            self._gain,
            NetworkTerms(decision_s=0.0, answer_s=0.0),
        )

    @property
    def codecs(self) -> tuple[str, ...]:
        """Codecs that a decision for this device may name."""
        return tuple(sorted({coded.codec for exit in self._exits for coded in exit.codecs}))

    @property
    def slowdown(self) -> float:
        """Factor on the profile's device times, as measured."""
        return self.speed.factor

    def options(self, size: int) -> OptionTable:
        """The choices for a task of `size` inputs."""
        return self.options_at(size, self.bandwidth_bytes_per_s)

    def options_at(self, size: int, bandwidth_bytes_per_s: float) -> OptionTable:
        """The same over a link that carries so much."""
        return self._system.options_at(0, size, bandwidth_bytes_per_s)

    def use_gain(self, gain: Gain) -> None:
        """Count gain as the edge does."""
        if gain != self._gain:
            self._gain = gain
            self._system = self._build()

    def computed(self, predicted_s: float, measured_s: float) -> None:
        """A computation that was predicted to take `predicted_s` at the present slowdown has been measured."""
        if predicted_s > 0 and self.speed.measured(predicted_s / self.speed.factor, measured_s):
            self._system = self._build()
