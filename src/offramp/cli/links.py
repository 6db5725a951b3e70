"""What `simulate` and `compare` make of recorded links."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from offramp.errors import OfframpError
from offramp.observation import Timing

if TYPE_CHECKING:
    from offramp.linked_state import Replay

ESTIMATE, MEAN = "estimate", "mean"


def check_link_start(path: Path | None, start_s: float) -> None:
    """Raises OfframpError for a place in a recording where there is none."""
    if path is None and start_s != 0.0:
        raise OfframpError("link-start-s", start_s, "only with --link-trace", "name a recorded uplink")


def replay_of(path: Path | None, start_s: float, assume: str, timing: Timing) -> Replay | None:
    """Recorded links and what to take them for; None without a recording. Raises OfframpError."""
    from offramp.link import load_trace, parse_rate
    from offramp.linked_state import Replay

    check_link_start(path, start_s)
    if path is None:
        if assume != ESTIMATE:
            raise OfframpError("assume-link", assume, "only with --link-trace", "name a recorded uplink")
        return None
    if timing != "network":
        raise OfframpError("timing", timing, "must be network with --link-trace", "add --timing network")
    recording = load_trace(path, 0.0, 0.0)
    if assume == ESTIMATE:
        return Replay(recording, start_s)
    assumed = recording.bandwidth_bytes_per_s if assume == MEAN else parse_rate(assume)
    return Replay(recording, start_s, assumed)


def link_description(replay: Replay | None, path: Path | None) -> dict[str, object] | None:
    """What is printed about recorded links."""
    if replay is None or path is None:
        return None
    return {
        "trace": path.name,
        "mean_bytes_per_s": replay.recording.bandwidth_bytes_per_s,
        "assumed_bytes_per_s": replay.assumed,
    }
