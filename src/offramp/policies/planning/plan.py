"""Plans as values: kept in memory and in the user's cache folder under the hash of what they were made from."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

import numpy as np

from offramp.cache import cache_folder
from offramp.equations import FloatArray
from offramp.errors import OfframpError
from offramp.policies.planning.problem import Grid, Kind, Problem, Terms
from offramp.validation import write_atomically

_MEMORY_PLANS = 64
_DISK_PLANS = 500
_memory: OrderedDict[str, FloatArray] = OrderedDict()
_lock = Lock()


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Values after a decision, relative to idle, in gains.

    Attributes:
        grid, terms: of the problem.
        kinds: what devices the tables are for.
        after: (kinds, points, …) over the backlogs; see `solve`.
    """

    grid: Grid
    terms: Terms
    kinds: tuple[Kind, ...]
    after: FloatArray

    def table(self, kind: Kind) -> FloatArray:
        """The table of the planned kind that is nearest in speed and link."""
        table: FloatArray = self.after[self.place(kind)]
        return table

    def place(self, kind: Kind) -> int:
        """Where in `after` that table is."""
        place = np.log(np.maximum(np.array(self.kinds), 1e-9))
        distance = np.linalg.norm(place - np.log(np.maximum(np.array(kind), 1e-9)), axis=1)
        return int(np.argmin(distance))


def make_plan(problem: Problem) -> Plan:
    """The problem's plan: from memory, from disk, or solved now and kept in both."""
    key = problem.key
    with _lock:
        after = _memory.get(key)
        if after is not None:
            _memory.move_to_end(key)
    if after is None:
        after = _from_disk(key, (len(problem.kinds), *problem.shape))
        if after is None:
            from offramp.policies.planning.solve import solve

            after = solve(problem)
            _to_disk(key, after)
        with _lock:
            _memory[key] = after
            while len(_memory) > _MEMORY_PLANS:
                _memory.popitem(last=False)
    return Plan(problem.grid, problem.terms, problem.kinds, after)


def forget_plans() -> None:
    """Empty the memory; the disk keeps what it has."""
    with _lock:
        _memory.clear()


def _from_disk(key: str, shape: tuple[int, ...]) -> FloatArray | None:
    path = cache_folder("plans") / f"{key}.npz"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            after: FloatArray = stored["after"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    good = after.dtype == np.float64 and after.shape == shape and bool(np.isfinite(after).all())
    return after if good else None


def _to_disk(key: str, after: FloatArray) -> None:
    """Keep a plan for the next process. A cache that cannot be written costs time, not answers."""
    folder = cache_folder("plans")
    content = io.BytesIO()
    np.savez_compressed(content, after=after)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        kept = sorted(folder.glob("*.npz"), key=lambda path: path.stat().st_mtime)
        for path in kept[: max(0, len(kept) + 1 - _DISK_PLANS)]:
            path.unlink(missing_ok=True)
        write_atomically(folder / f"{key}.npz", content.getvalue())
    except (OSError, OfframpError):
        return
