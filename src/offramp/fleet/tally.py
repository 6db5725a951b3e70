"""What came of a stream, counted: sums of whole numbers, the same however the stream was cut up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from offramp.equations import FloatArray, IntArray
from offramp.options import OptionTable

ON_TIME, LATE, UNFINISHED = 0, 1, 2
"""What comes of a task: it is finished in time or too late, or it is dropped or not done to the end."""


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """One edge's tasks by what was decided and what came of it.

    Attributes:
        counts: (sizes, 1 + rows, 3): row 0 is for dropped tasks, the others are the option table's; the last axis is
            for `ON_TIME`, `LATE` and `UNFINISHED`.
        span_s: from the stream's beginning to its last arrival, seconds.
        load: share of that time that the edge's workers computed; above 1 where work is left at the last arrival.
    """

    counts: IntArray
    span_s: float
    load: float


@dataclass(frozen=True, slots=True)
class Summary:
    """What came of one stream or of many. Every submitted task is in one of the five counts after it.

    Attributes:
        submitted, on_time, late, rejected, expired: tasks; `rejected` were dropped by the policy, `expired` not
            started, or not finished, because it was too late for that.
        gain: total gain.
        accuracy: mean accuracy of the exits of the tasks that were on time, None where there is none.
        exits, cuts: tasks that were finished, by what was decided.
        edge_load: share of the time that the edges' workers computed, mean over the edges; `busiest_edge_load` of
            the one that computed most.
        span_s: seconds from the beginning to the last arrival, of the edge where that is longest.
    """

    submitted: int
    on_time: int
    late: int
    rejected: int
    expired: int
    gain: float
    accuracy: float | None
    exits: dict[int, int]
    cuts: dict[int, int]
    edge_load: float
    busiest_edge_load: float
    span_s: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON: names as in the output of `demo`."""
        return {
            "submitted": self.submitted,
            "on_time": self.on_time,
            "late": self.late,
            "rejected": self.rejected,
            "expired": self.expired,
            "on_time_share": self.on_time / self.submitted,
            "gain": self.gain,
            "mean_gain": self.gain / self.submitted,
            "accuracy": self.accuracy,
            "exits": {str(exit): count for exit, count in self.exits.items()},
            "cuts": {str(cut): count for cut, count in self.cuts.items()},
            "edge_load": self.edge_load,
            "busiest_edge_load": self.busiest_edge_load,
            "span_s": self.span_s,
        }


def summed(tallies: Sequence[Tally], table: OptionTable) -> Summary:
    """The sums of edges that serve one model, whose rows are those of `table`."""
    by_row: IntArray = sum((tally.counts.sum(axis=0) for tally in tallies), np.zeros(1, np.int64))
    met = by_row[1:, ON_TIME]
    done = by_row[1:, :UNFINISHED].sum(axis=1)
    on_time = int(met.sum())
    return Summary(
        submitted=int(by_row.sum()),
        on_time=on_time,
        late=int(by_row[1:, LATE].sum()),
        rejected=int(by_row[0].sum()),
        expired=int(by_row[1:, UNFINISHED].sum()),
        gain=_weighted(met, table.gain),
        accuracy=_weighted(met, table.accuracy) / on_time if on_time else None,
        exits=_counts(done, table.exit),
        cuts=_counts(done, table.cut),
        edge_load=float(np.mean([tally.load for tally in tallies])),
        busiest_edge_load=max(tally.load for tally in tallies),
        span_s=max(tally.span_s for tally in tallies),
    )


def _weighted(counts: IntArray, value: FloatArray) -> float:
    return float((counts * value).sum())


def _counts(counts: IntArray, value: IntArray) -> dict[int, int]:
    return {
        int(one): int(counts[value == one].sum()) for one in np.unique(value) if counts[value == one].any()
    }
