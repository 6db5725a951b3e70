"""Work beside the event loop that must not be in its way."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

GIVES_WAY = 10
"""Niceness that the thread adds to its process's, 0 to 19."""


def background_pool(name: str) -> ThreadPoolExecutor:
    """A pool of one thread, which gets the processor when nothing else of this process wants it.

    Where threads cannot have priorities of their own (other systems than Linux) it competes like any other.
    """
    return ThreadPoolExecutor(1, thread_name_prefix=name, initializer=_give_way)


def _give_way() -> None:
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, min(19, os.getpriority(os.PRIO_PROCESS, thread) + GIVES_WAY))
