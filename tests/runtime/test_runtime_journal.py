"""The journal keeps what it was told, counts every task once across crashes, and says what is wrong with it."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_runtime_processes import an_edge, balanced, device_arguments, running, share

from offramp.errors import OfframpError
from offramp.runtime import journal as journal_module
from offramp.runtime.journal import Journal, JournalFullError
from offramp.runtime.outcomes import End, Instants, TaskRecord
from offramp.task import Decision, Task

TASK = Task(0.0, 3, 0.1, 0)


def ended(sequence: int, end: End = End.ON_TIME) -> TaskRecord:
    return TaskRecord(sequence, 0.0, 3, 0.1, end, "", 1, 2, False, None, Instants(), None, None, 1.0)


def abandon(journal: Journal) -> None:
    """Let go of a journal as a killed process does: nothing is finished or written."""
    journal._connection.close()


@given(st.lists(st.lists(st.sampled_from([None, *End]), max_size=6), min_size=1, max_size=4))
def test_every_task_counts_once_over_any_number_of_crashes(
    tmp_path_factory: pytest.TempPathFactory, starts: list[list[End | None]]
) -> None:
    path = tmp_path_factory.mktemp("journal") / "j"
    counts = dict.fromkeys(map(str, End), 0)
    left = 0
    for number, ends in enumerate(starts, start=1):
        journal = Journal.open(path, "d")
        assert (journal.epoch, journal.crashed) == (number, left)
        counts["failed"] += left
        left = 0
        for sequence, end in enumerate(ends):
            journal.accept(sequence, TASK)
            if end is None:
                left += 1
                continue
            journal.decide(sequence, Decision(1, 2))
            journal.end(ended(sequence, end))
            counts[str(end)] += 1
            with pytest.raises(ValueError, match="not open"):
                journal.end(ended(sequence, end))
        submitted = sum(counts.values()) + left
        assert journal.counts() == {"submitted": submitted, "in_flight": left, **counts}
        abandon(journal)


def test_old_tasks_make_room_but_still_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "KEPT", 10)
    journal = Journal.open(tmp_path / "j", "d")
    for sequence in range(100):
        journal.accept(sequence, TASK)
        if sequence:
            journal.end(ended(sequence))
    assert journal.counts() | {"submitted": 100, "in_flight": 1, "on_time": 99} == journal.counts()
    rows = journal._connection.execute("SELECT sequence FROM tasks ORDER BY number").fetchall()
    # The oldest task is still open, so its row stays whatever its age.
    assert rows[0] == (0,)
    assert len(rows) <= 11
    journal.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["j"]


def test_a_key_is_taken_once(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "j", "d")
    journal.accept(0, TASK)
    with pytest.raises(JournalFullError):
        journal.accept(0, TASK)
    journal.close()


def test_a_journal_has_one_owner_at_a_time(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "j", "d")
    with pytest.raises(OfframpError, match=r"journal = .*locked"):
        Journal.open(tmp_path / "j", "d")
    journal.close()
    with pytest.raises(OfframpError, match="belongs to device d"):
        Journal.open(tmp_path / "j", "other")
    Journal.open(tmp_path / "j", "d").close()


@pytest.mark.parametrize(
    "content", [b"no database at all, but long enough" * 40, b"SQLite format 3\x00" + b"\xff" * 4096]
)
def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "j"
    path.write_bytes(content)
    with pytest.raises(OfframpError, match="journal = "):
        Journal.open(path, "d")
    assert path.read_bytes() == content
    with sqlite3.connect(tmp_path / "other") as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    with pytest.raises(OfframpError, match="is no journal"):
        Journal.open(tmp_path / "other", "d")


def test_a_damaged_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal = Journal.open(path, "d")
    for sequence in range(2000):
        journal.accept(sequence, TASK)
    journal.close()
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    path.write_bytes(content)
    with pytest.raises(OfframpError, match="journal = "):
        Journal.open(path, "d")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(["mount", *options], check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def accept_until_full(journal: Journal) -> int:
    """How many tasks found room."""
    for sequence in range(100_000):
        try:
            journal.accept(sequence, TASK)
        except JournalFullError:
            return sequence
    raise AssertionError("the disk did not fill")


def test_ends_find_room_on_a_full_disk(small_disk: Path) -> None:
    journal = Journal.open(small_disk / "j", "d")
    (small_disk / "other").write_bytes(bytes(300_000))
    accepted = accept_until_full(journal)
    assert accepted > 10
    reserve = small_disk / "j.reserve"
    assert reserve.stat().st_size == journal_module.RESERVE_BYTES
    for sequence in range(accepted - 10, accepted):
        journal.end(ended(sequence, End.LATE))
    assert journal.counts()["late"] == 10
    abandon(journal)
    again = Journal.open(small_disk / "j", "d")
    assert again.crashed == accepted - 10
    again.close()


def test_a_killed_device_finds_its_tasks_again(tmp_path: Path) -> None:
    tasks_file = share(tmp_path / "share.npz", tasks=30, gap_s=0.05, size=8)
    journal = ["--journal", str(tmp_path / "journal")]
    with an_edge() as (_, address):
        with running(*device_arguments(address, tasks_file), *journal) as device:
            device.event("ready")
            device.order(start_s=time.monotonic())
            device.event("task")
            device.process.kill()
        with running(*device_arguments(address, tasks_file), *journal) as device:
            device.event("ready")
            device.order(start_s=time.monotonic())
            summary = device.event("done")["summary"]
            assert device.finish()[0] == 0
    assert balanced(summary)
    assert summary["submitted"] == 30
    assert summary["epoch"] == 2
    assert summary["crashed"] >= 1
    everything = summary["all_starts"]
    assert everything["in_flight"] == 0
    assert everything["submitted"] == sum(everything[str(end)] for end in End) > 30
    assert everything["failed"] == summary["failed"] + summary["crashed"]
    assert json.dumps(everything)
