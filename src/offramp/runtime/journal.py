"""A device's journal: every task it accepts, how it was decided, and its one end, on disk before they count.

The journal survives a crash of the device: the next start counts its boot epoch up and ends what was left open as
`failed` (crash). It never invents another end.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from offramp.errors import OfframpError
from offramp.runtime.outcomes import End, TaskRecord
from offramp.task import Decision, Task

KEPT = 10_000
"""Ended tasks whose rows are kept; the counts of all are kept for ever."""
RESERVE_BYTES = 256 * 1024
"""Set aside beside the journal, so that a full disk still takes the ends of the tasks in flight."""
CACHE_KIB = 256

_SCHEMA = """
CREATE TABLE device (name TEXT NOT NULL, epoch INTEGER NOT NULL);
CREATE TABLE ends (end TEXT PRIMARY KEY, tasks INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE tasks (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    epoch INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    size INTEGER NOT NULL,
    budget_s REAL NOT NULL,
    exit INTEGER,
    cut INTEGER,
    end TEXT,
    reason TEXT,
    gain REAL,
    UNIQUE (epoch, sequence)
);
CREATE INDEX open_tasks ON tasks (number) WHERE end IS NULL;
"""
_FORMAT = 1


class JournalFullError(Exception):
    """The journal cannot be written any more, for want of room or for another reason of the disk's."""


class Journal:
    """One device's journal. Only one process can have it open."""

    def __init__(self, path: Path, connection: sqlite3.Connection, epoch: int, crashed: int) -> None:
        self.epoch, self.crashed = epoch, crashed
        self._path = path
        self._connection = connection
        self._reserve = path.with_name(path.name + ".reserve")
        self._set_aside()

    @classmethod
    def open(cls, path: Path, device: str) -> Self:
        """Open or make a device's journal, count its epoch up, and end what a crash left open.

        Raises OfframpError if the file is damaged, another device's, in use, or cannot be written.
        """
        try:
            connection = sqlite3.connect(path, isolation_level=None, timeout=0.5)
        except sqlite3.Error as error:
            raise _unusable(path, str(error)) from None
        try:
            epoch, crashed = _begin(connection, path, device)
            return cls(path, connection, epoch, crashed)
        except sqlite3.Error as error:
            connection.close()
            raise _unusable(path, str(error)) from None
        except BaseException:
            connection.close()
            raise

    def accept(self, sequence: int, task: Task) -> None:
        """A task is taken on. Raises JournalFullError; then it must not be."""
        self._write(
            "INSERT INTO tasks (epoch, sequence, size, budget_s) VALUES (?, ?, ?, ?)",
            (self.epoch, sequence, task.size, task.budget_s),
        )

    def decide(self, sequence: int, decision: Decision) -> None:
        """Where an open task is to be computed. Raises JournalFullError."""
        self._write(
            "UPDATE tasks SET exit = ?, cut = ? WHERE epoch = ? AND sequence = ? AND end IS NULL",
            (decision.exit, decision.cut, self.epoch, sequence),
        )

    def end(self, record: TaskRecord) -> None:
        """The end of an open task, kept even on a full disk. Raises JournalFullError."""
        try:
            self._end(record)
        except JournalFullError:
            self._reserve.unlink(missing_ok=True)
            self._end(record)

    def _end(self, record: TaskRecord) -> None:
        try:
            with self._connection:
                self._connection.execute("BEGIN")
                changed = self._connection.execute(
                    "UPDATE tasks SET exit = ?, cut = ?, end = ?, reason = ?, gain = ? "
                    "WHERE epoch = ? AND sequence = ? AND end IS NULL",
                    (
                        *(record.exit, record.cut, str(record.end), record.reason, record.gain),
                        *(self.epoch, record.sequence),
                    ),
                ).rowcount
                if changed != 1:
                    raise ValueError(f"task {record.sequence} is not open in the journal")
                _count(self._connection, record.end, 1)
                self._connection.execute(
                    "DELETE FROM tasks WHERE end IS NOT NULL AND number <= (SELECT max(number) FROM tasks) - ?",
                    (KEPT,),
                )
        except sqlite3.Error as error:
            raise JournalFullError(str(error)) from None

    def counts(self) -> dict[str, int]:
        """Over all starts of the device: `submitted`, `in_flight` and every end."""
        ends = dict(self._connection.execute("SELECT end, tasks FROM ends").fetchall())
        open_tasks = self._connection.execute("SELECT count(*) FROM tasks WHERE end IS NULL").fetchone()[0]
        return {
            "submitted": sum(ends.values()) + open_tasks,
            "in_flight": open_tasks,
            **{str(end): ends.get(str(end), 0) for end in End},
        }

    def close(self) -> None:
        """Write everything out and let go of the file."""
        self._reserve.unlink(missing_ok=True)
        self._connection.close()

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        try:
            self._connection.execute(statement, values)
        except sqlite3.Error as error:
            raise JournalFullError(str(error)) from None

    def _set_aside(self) -> None:
        try:
            # Zeros may be stored as nothing at all; these bytes must take room.
            self._reserve.write_bytes(os.urandom(RESERVE_BYTES))
        except OSError as error:
            self._reserve.unlink(missing_ok=True)
            raise _unusable(self._path, error.strerror or str(error)) from None


def _unusable(path: Path, reason: str) -> OfframpError:
    return OfframpError("journal", str(path), f"cannot be used ({reason})", "make room, or name another file")


def _begin(connection: sqlite3.Connection, path: Path, device: str) -> tuple[int, int]:
    """Check or make the tables; the new epoch, and how many tasks the last crash left open."""
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    # The journal is written, hardly read: its pages need not be held in memory as it fills.
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    connection.execute("PRAGMA journal_mode = WAL")
    # A crash of the process loses nothing; only a loss of power may take back the last moments.
    connection.execute("PRAGMA synchronous = NORMAL")
    with connection:
        connection.execute("BEGIN EXCLUSIVE")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if version == 0 and tables == 0:
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {_FORMAT}")
            connection.execute("INSERT INTO device VALUES (?, 0)", (device,))
        elif version != _FORMAT:
            raise OfframpError("journal", str(path), "is no journal of a device", "name another file")
        if connection.execute("PRAGMA quick_check").fetchone()[0] != "ok":
            raise OfframpError("journal", str(path), "is damaged", "move it away, or name another file")
        owner, epoch = connection.execute("SELECT name, epoch FROM device").fetchone()
        if owner != device:
            raise OfframpError("journal", str(path), f"belongs to device {owner}", "give each device its own")
        connection.execute("UPDATE device SET epoch = ?", (epoch + 1,))
        crashed = connection.execute(
            "UPDATE tasks SET end = ?, reason = 'crash', gain = 0 WHERE end IS NULL", (str(End.FAILED),)
        ).rowcount
        _count(connection, End.FAILED, crashed)
    return epoch + 1, crashed


def _count(connection: sqlite3.Connection, end: End, tasks: int) -> None:
    connection.execute(
        "INSERT INTO ends VALUES (?, ?) ON CONFLICT (end) DO UPDATE SET tasks = tasks + excluded.tasks",
        (str(end), tasks),
    )


def with_journal(summary: Mapping[str, Any], journal: Journal | None) -> dict[str, Any]:
    """A summary with the counts over all starts, where there is a journal."""
    if journal is None:
        return dict(summary)
    return {**summary, "epoch": journal.epoch, "crashed": journal.crashed, "all_starts": journal.counts()}
