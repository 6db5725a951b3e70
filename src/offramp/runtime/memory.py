"""What a process that runs for months asks of the allocator: to give back what it no longer needs."""

from __future__ import annotations

import ctypes

LARGE_BYTES = 128 * 1024
ARENAS = 2
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


def trim() -> None:
    """Give back what is free between what is not. A few milliseconds, so call it when there is nothing to do."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        return
