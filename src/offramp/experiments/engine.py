"""Runs pieces of work in parallel; `run_kept` keeps each cell's result as soon as it is there."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Protocol, TypeVar

from offramp.experiments.cells import Cell, NetworkExits, Outcome, run_cell
from offramp.validation import dump_json, make_folder, write_atomically

Item = TypeVar("Item")
Result = TypeVar("Result")


class Engine(Protocol):
    """Where work runs."""

    def run(self, work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
        """Do the work for every item and give each result once, in any order; what it raises is raised here.

        `work` is a function of a module, or a `functools.partial` of one.
        """
        ...


class InlineEngine:
    """This process, one item after the other, in their order."""

    def run(self, work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
        """See `Engine`."""
        for item in items:
            yield item, work(item)


class LocalEngine:
    """Processes of this machine."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs

    def run(self, work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
        """See `Engine`. An interruption or this process's end ends the workers at once; what they are at is lost."""
        # Forking a process whose libraries run threads may hang; a spawned one starts clean.
        pool = ProcessPoolExecutor(
            min(self._jobs, max(1, len(items))),
            multiprocessing.get_context("spawn"),
            initializer=_leave_stopping_to_the_parent,
        )
        try:
            running = {pool.submit(work, item): item for item in items}
            for future in as_completed(running):
                yield running[future], future.result()
        except BaseException:
            for process in list((pool._processes or {}).values()):
                process.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _leave_stopping_to_the_parent() -> None:
    # Ctrl-C reaches the whole process group; the parent alone decides how to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A killed parent tells nobody, and a worker that waits for its next item would wait for ever.
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    # Nobody is left to take what an orderly end would still write.
    os._exit(1)


def run_kept(
    cells: Sequence[Cell], exits: NetworkExits, engine: Engine, folder: Path
) -> Iterator[tuple[Cell, list[Outcome]]]:
    """Run the cells that `folder` has no result of, keep each new result there, and give all results.

    A result file is named by everything that it depends on (`Cell.key`), so an interrupted run goes on where it
    stopped, and a change of code, profile or scenario runs anew.
    """
    make_folder(folder)
    missing = []
    for cell in cells:
        kept = _read(folder / f"{cell.key(exits)}.json")
        if kept is None:
            missing.append(cell)
        else:
            yield cell, kept
    if not missing:
        return
    for cell, outcomes in engine.run(partial(run_cell, exits=exits), missing):
        write_atomically(
            folder / f"{cell.key(exits)}.json",
            dump_json({"policy": cell.policy, "outcomes": [asdict(o) for o in outcomes]}),
        )
        yield cell, outcomes


def _read(path: Path) -> list[Outcome] | None:
    try:
        return [Outcome(**row) for row in json.loads(path.read_text())["outcomes"]]
    except (OSError, ValueError, KeyError, TypeError):
        # Absent, or not a result: run the cell again.
        return None
