"""What a process that runs for months asks of the allocator: to give back what it no longer needs."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from pathlib import Path

LARGE_BYTES = 128 * 1024
ARENAS = 2
GROWTH = 0.04
GAPS_S = (5.0, 15.0, 35.0, 75.0)
_STATM = Path("/proc/self/statm")
# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def give_back() -> None:
    """Let large buffers go back to the system as soon as they are freed; does nothing where that cannot be said.

    By itself glibc raises its idea of large with every large buffer that is freed. After a few of the largest frames
    it would keep all later ones within the heap, among what lives long, and the process would stay as large as it was.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for parameter, value in (
        (_M_MMAP_THRESHOLD, LARGE_BYTES),
        (_M_TRIM_THRESHOLD, LARGE_BYTES),
        (_M_ARENA_MAX, ARENAS),
    ):
        mallopt(parameter, value)


class Slack:
    """Gives back what is free between what is not, when the process has grown.

    That walks the whole heap, tens of milliseconds on a slow machine: so it is done where there is nothing to do, and
    only after the process has grown by `GROWTH` since the last time. What made it grow may still be there then, a flood
    of connections for instance: so it is done again after `GAPS_S`.
    """

    def __init__(self) -> None:
        self._resident = resident_pages()
        self._due_s: list[float] = []

    def give_back(self, now_s: float) -> None:
        """Call this now and then, while nothing waits."""
        if resident_pages() > (1.0 + GROWTH) * self._resident:
            self._due_s = [now_s, *(now_s + gap_s for gap_s in GAPS_S)]
        if not self._due_s or now_s < self._due_s[0]:
            return
        self._due_s = [due_s for due_s in self._due_s if due_s > now_s]
        trim()
        self._resident = resident_pages()


def trim() -> None:
    """Give every page of the heap back in which nothing lives; does nothing where that cannot be done."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def started() -> None:
    """Start-up is over: what it has left is there to stay, and is not looked through for garbage any more.

    To look through everything takes a process that has loaded its libraries 25 ms and more, in which it stands still.
    """
    gc.collect()
    gc.freeze()


def resident_pages() -> int:
    """Pages of this process that are in memory; 0 where that is not told."""
    try:
        return int(_STATM.read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
