"""A disk that is full, and a journal that is damaged."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from plant.books import ENDS, read_journal
from plant.report import Report, Skipped
from plant.site import Load, Site, Unit, site

BUSY = Load(p=0.1, k=6.0)
SMALL = "1m"


def small_disk(folder: Path) -> None:
    """A file system of a megabyte at this folder. Raises Skipped."""
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", str(folder)],
        check=False,
        capture_output=True,
    )
    if made.returncode != 0:
        raise Skipped("a small file system needs root")


def disk_full(report: Report) -> None:
    """Another program fills the disk on which a device keeps its journal."""
    with site() as there:
        disk = there.folder / "disk"
        small_disk(disk)
        try:
            there.start_edge()
            unit = there.start_device("d0", BUSY, journal=disk / "journal")
            other = there.start_device("d1", Load(p=0.1, k=6.0, seed=1))
            there.started()
            there.run_for(5.0)
            fill(disk / "other")
            status = unit.command.finish(120.0)
            words = unit.command.words.strip().splitlines()
            report.add("status", status, "==", 2)
            says = "journal" in words[-1] and "cannot be written" in words[-1]
            report.add("says why in its last line", says, "==", 1)
            (disk / "other").unlink()
            submitted, ended = last_counts(unit)
            kept = read_journal(unit.journal, BUSY.scenario, BUSY.seed)
            report.add("tasks accepted", submitted)
            report.add(
                "tasks in the journal without an end", sum(row.end is None for row in kept.rows), "==", 0
            )
            report.add(
                "more ends in the journal than tasks",
                max(0, sum(kept.ends().values()) - len(kept.rows)),
                "==",
                0,
            )
            report.add(
                "ends seen and not in the journal", max(0, ended - sum(kept.counted.values())), "==", 0
            )
            again = restarted(there, unit)
            report.add("afterwards it starts with the same journal", again, "==", 1)
            report.add("other device runs", other.command.alive, "==", 1)
            finish(there, report)
        finally:
            subprocess.run(["umount", "-l", str(disk)], check=False)


def fill(file: Path) -> None:
    """Take all the room that there is."""
    with file.open("wb", buffering=0) as taken:
        for size in (4096, 1):
            try:
                while taken.write(os.urandom(size)):
                    pass
            except OSError:
                continue


def last_counts(unit: Unit) -> tuple[float, float]:
    """Tasks accepted and tasks ended as the metrics showed them last."""
    seen = unit.seen[-1][1]
    return seen["offramp_device_submitted_total"], sum(
        seen[f'offramp_device_ended_total{{end="{end}"}}'] for end in ENDS
    )


def restarted(there: Site, unit: Unit) -> bool:
    """Whether a device starts once more with its journal."""
    again = there.start_device(unit.command.name, unit.load, journal=unit.journal)
    there.started()
    there.run_for(1.0)
    return again.command.alive


def finish(there: Site, report: Report) -> None:
    """End everything that still runs."""
    there.stop_devices()
    there.edge.signal(signal.SIGTERM)
    there.edge.finish()
    there.close()
    report.complaints += there.complaints


def journal_damaged(report: Report) -> None:
    """A journal is overwritten, cut or exchanged: before a start, and under a device that runs."""
    damages: dict[str, Callable[[Path], None]] = {
        "overwritten": lambda path: overwrite(path, path.stat().st_size),
        "half overwritten": lambda path: overwrite(path, path.stat().st_size // 2),
        "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
        "of another device": lambda path: None,
    }
    with site() as there:
        there.start_edge()
        for number, (what, damage) in enumerate(damages.items()):
            unit = there.start_device(f"d{number}", BUSY)
            there.started()
            there.run_for(2.0)
            unit.command.signal(signal.SIGTERM)
            unit.command.finish()
            damage(unit.journal)
            before = unit.journal.read_bytes()
            name = "stranger" if what == "of another device" else unit.command.name
            again = there.start_device(name, BUSY, journal=unit.journal)
            status = again.command.finish()
            lines = again.command.words.strip().splitlines()
            refused = status == 2 and len(lines) == 1 and "journal" in lines[0]
            report.add(f"{what}: refused in one line", refused, "==", 1)
            report.add(f"{what}: left as it is", unit.journal.read_bytes() == before, "==", 1)
            there.units.clear()
        under_way(there, report)
        finish(there, report)


def under_way(there: Site, report: Report) -> None:
    """Damage under a device that runs: it goes on or stops with a message, and what it says adds up."""
    unit = there.start_device("running", BUSY)
    there.started()
    there.run_for(3.0)
    overwrite(unit.journal, unit.journal.stat().st_size)
    at_s = time.monotonic()
    there.run_for(4.0)
    if unit.command.alive:
        unit.command.signal(signal.SIGTERM)
    status = unit.command.finish()
    words = unit.command.words
    report.add(
        "under way: ended in order or with a message",
        status == 0 or (status == 2 and "journal" in words),
        "==",
        1,
    )
    report.add("under way: no traceback", "Traceback" in words, "==", 0)
    if status == 0:
        summary = unit.command.summary()
        report.add(
            "under way: submitted less ends",
            summary["submitted"] - sum(summary[end] for end in ENDS),
            "==",
            0,
        )
    report.add("under way: s until it stopped", time.monotonic() - at_s)
    there.units.remove(unit)


def overwrite(path: Path, size: int) -> None:
    """Noise over the last `size` bytes."""
    with path.open("r+b") as file:
        file.seek(-size, os.SEEK_END)
        file.write(os.urandom(size))
