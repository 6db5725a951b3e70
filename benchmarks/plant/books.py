"""The books of a device: what it said, what its journal holds, and what could have been done."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offramp.cli.arguments import exits_of
from offramp.runtime.journal import KEPT
from offramp.runtime.outcomes import End
from offramp.runtime.workload import own_stream
from offramp.scenario import Scenario

ENDS = tuple(str(end) for end in End)
ON_TIME = str(End.ON_TIME)


@dataclass(frozen=True, slots=True)
class Row:
    """A task as the journal has it; `arrival_s` counts from the start of the stream."""

    epoch: int
    sequence: int
    end: str | None
    reason: str | None
    arrival_s: float
    budget_s: float
    size: int


@dataclass(frozen=True, slots=True)
class Journal:
    """What a device that has ended left on its disk."""

    rows: tuple[Row, ...]
    counted: dict[str, int]

    def ends(self) -> dict[str, int]:
        """Rows of each end."""
        return {end: sum(row.end == end for row in self.rows) for end in ENDS}


def read_journal(path: Path, scenario: Scenario, seed: int) -> Journal:
    """A device's journal beside the stream that its command drew."""
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT epoch, sequence, end, reason FROM tasks ORDER BY number").fetchall()
        counted = dict(connection.execute("SELECT end, tasks FROM ends").fetchall())
    connection.close()
    last = max((row[1] for row in rows), default=-1)
    planned = [task for task, _ in zip(own_stream(scenario, 1, seed), range(last + 1), strict=False)]
    return Journal(
        tuple(
            Row(*row, planned[row[1]].arrival_s, planned[row[1]].budget_s, planned[row[1]].size)
            for row in rows
        ),
        {end: counted.get(end, 0) for end in ENDS},
    )


def complaints(summary: dict[str, Any], journal: Journal | None) -> list[str]:
    """What does not add up."""
    found = []
    if summary["submitted"] != sum(summary[end] for end in ENDS):
        found.append(f"submitted {summary['submitted']} is not the sum of the ends")
    if journal is None:
        return found
    keys = [(row.epoch, row.sequence) for row in journal.rows]
    if len(set(keys)) != len(keys):
        found.append("a task is in the journal twice")
    if any(row.end is None for row in journal.rows):
        found.append("the journal holds a task without an end")
    # A journal counts all tasks and keeps the rows of the latest.
    if sum(journal.counted.values()) <= KEPT and journal.ends() != journal.counted:
        found.append(f"the journal counts {journal.counted}, its tasks are {journal.ends()}")
    if "all_starts" in summary and {end: summary["all_starts"][end] for end in ENDS} != journal.counted:
        found.append(f"the summary says {summary['all_starts']}, the journal {journal.counted}")
    return found


def could_end_locally(rows: Sequence[Row], slowdown: float) -> list[bool]:
    """Which tasks a device alone can end in time if it takes the quickest exit for each: the most that can be."""
    exits = exits_of(None)
    free_s = -math.inf
    could = []
    for row in rows:
        quickest_s = slowdown * min(float(exit.layer_s("device", row.size).sum()) for exit in exits)
        finish_s = max(free_s, row.arrival_s) + quickest_s
        could.append(finish_s <= row.arrival_s + row.budget_s)
        if could[-1]:
            free_s = finish_s
    return could


def share(rows: Iterable[Row]) -> float:
    """On-time share; 1 of no tasks."""
    ends = [row.end == ON_TIME for row in rows]
    return sum(ends) / len(ends) if ends else 1.0
