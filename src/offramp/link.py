"""A device's uplink as arithmetic: when what is handed to it has crossed.

The device paces its uploads by these, and the simulator lays them out; nothing here waits or reads a clock.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from offramp import equations
from offramp.errors import OfframpError
from offramp.validation import read_text

PACKET_BYTES = 1500
"""What crosses at one opportunity of a Mahimahi trace."""

_UNIT = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
_RATE = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*([kmg]?)bit(?:/s|ps)?", re.IGNORECASE)
_DELAY = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(s|ms|us)", re.IGNORECASE)
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


class Link(Protocol):
    """One uplink, which carries one upload at a time, in the order in which they are handed over."""

    @property
    def bandwidth_bytes_per_s(self) -> float:
        """What it carries in the long run."""
        ...

    @property
    def steady(self) -> bool:
        """Whether it carries that at every moment."""
        ...

    @property
    def delay_s(self) -> float:
        """One-way delay beside the time on the wire; it does not occupy the link."""
        ...

    def carry(self, ready_s: float, size_bytes: float) -> float:
        """Hand an upload over at `ready_s`; the instant at which the link is free of it."""
        ...


@dataclass(slots=True)
class RateLink:
    """A constant rate."""

    bandwidth_bytes_per_s: float
    delay_s: float = 0.0
    _free_s: float = field(default=-math.inf, init=False)

    @property
    def steady(self) -> bool:
        """See `Link`."""
        return True

    def carry(self, ready_s: float, size_bytes: float) -> float:
        """See `Link`."""
        start_s = max(ready_s, self._free_s)
        # A size may be numpy's, whose floats no message carries.
        self._free_s = float(start_s + equations.upload_duration(size_bytes, self.bandwidth_bytes_per_s))
        return self._free_s


@dataclass(slots=True)
class TraceLink:
    """A recorded link: 1500 bytes may cross at each of its instants, and at the end it starts over.

    Attributes:
        instants_ms: ascending, in milliseconds, as in the trace; the last one is its length and is > 0.
        origin_s: the instant at which the recording starts.
    """

    instants_ms: npt.NDArray[np.int64]
    delay_s: float = 0.0
    origin_s: float = 0.0
    _used: int = field(default=0, init=False)

    @property
    def bandwidth_bytes_per_s(self) -> float:
        """The recording's mean."""
        return len(self.instants_ms) * PACKET_BYTES * 1000.0 / float(self.instants_ms[-1])

    @property
    def steady(self) -> bool:
        """See `Link`."""
        return False

    def carry(self, ready_s: float, size_bytes: float) -> float:
        """See `Link`. An opportunity carries one packet of one upload, and is gone if none waits for it."""
        first = max(self._used, self._first_from(ready_s))
        self._used = first + max(1, math.ceil(size_bytes / PACKET_BYTES))
        return max(ready_s, self._instant_s(self._used - 1))

    def _first_from(self, instant_s: float) -> int:
        """Number of the first opportunity at or after an instant, counted over all laps."""
        # Rounding first keeps an opportunity at exactly this millisecond, whatever the float says.
        since_ms = round((instant_s - self.origin_s) * 1000.0, 6)
        if since_ms <= 0:
            return 0
        lap, within_ms = divmod(since_ms, float(self.instants_ms[-1]))
        if within_ms == 0.0:
            # The last opportunity of the lap before falls on the first instant of this one.
            lap, within_ms = lap - 1, float(self.instants_ms[-1])
        inside = int(np.searchsorted(self.instants_ms, within_ms, side="left"))
        return int(lap) * len(self.instants_ms) + inside

    def _instant_s(self, number: int) -> float:
        lap, inside = divmod(number, len(self.instants_ms))
        return self.origin_s + (lap * int(self.instants_ms[-1]) + int(self.instants_ms[inside])) / 1000.0


def parse_rate(text: str, field: str = "rate") -> float:
    """Bytes per second from `1000kbit`, `10mbit`, `250000bit`. Raises OfframpError."""
    match = _RATE.fullmatch(text.strip())
    rate = float(match[1]) * _UNIT[match[2].lower()] / 8.0 if match else 0.0
    if not 0 < rate < math.inf:
        raise OfframpError(field, text, "a rate > 0 in bit, kbit, mbit or gbit", "write it as 1000kbit")
    return rate


def parse_delay(text: str) -> float:
    """Seconds from `5ms`, `0.01s`, `300us`. Raises OfframpError."""
    match = _DELAY.fullmatch(text.strip())
    delay_s = float(match[1]) * _SECONDS[match[2].lower()] if match else math.inf
    if not delay_s <= 60.0:
        raise OfframpError("delay", text, "0 to 60 s, in s, ms or us", "write it as 5ms")
    return delay_s


def load_trace(path: Path, delay_s: float, origin_s: float) -> TraceLink:
    """A recorded link from its file. Raises OfframpError naming the line that is wrong."""
    lines = read_text(path, "link-trace").split()
    try:
        instants_ms = np.array([int(line) for line in lines], dtype=np.int64)
    except (ValueError, OverflowError):
        bad = next(line for line in lines if not line.isdecimal() or len(line) > 18)
        raise OfframpError("link-trace", bad, "whole milliseconds, one a line", f"correct {path}") from None
    return trace_link(instants_ms, path, delay_s, origin_s)


def trace_link(instants_ms: npt.NDArray[np.int64], path: Path, delay_s: float, origin_s: float) -> TraceLink:
    """A recorded link from the instants that a file has. Raises OfframpError if they are no recording."""
    if len(instants_ms) == 0 or instants_ms[0] < 0 or (np.diff(instants_ms) < 0).any():
        raise OfframpError("link-trace", str(path), "one or more ascending lines >= 0", "sort the trace")
    if instants_ms[-1] == 0:
        raise OfframpError(
            "link-trace", str(path), "the last line is its length, > 0 ms", "give a longer trace"
        )
    return TraceLink(instants_ms, delay_s, origin_s)


def make_link(rate: str, delay: str, trace: Path | None, now_s: float) -> Link:
    """The link that `--rate`, `--delay` and `--link-trace` describe; a trace starts now. Raises OfframpError."""
    bandwidth, delay_s = parse_rate(rate), parse_delay(delay)
    return RateLink(bandwidth, delay_s) if trace is None else load_trace(trace, delay_s, now_s)
