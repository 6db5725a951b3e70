"""Work beside the event loop gives way to it."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from offramp.runtime.background import background_pool


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priorities of their own")
def test_only_the_pools_thread_gives_way() -> None:
    before = niceness()
    with background_pool("aside") as pool:
        assert pool.submit(niceness).result() > before
    assert niceness() == before
