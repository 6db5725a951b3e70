"""An event loop whose timers are exact."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import select
import selectors
import sys
import time

AWAKE_S = 150e-6
"""How long before a timer is due the processor is no longer given up: to be woken takes about as long."""

if sys.platform == "linux":

    class _Selector(selectors.EpollSelector):
        """`EpollSelector`, which rounds every wait up to a millisecond, waiting to the microsecond.

        `SelectSelector` is as exact, but does not get over a descriptor that is closed while it is watched, as those of
        gRPC are when its last connection goes.
        """

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            if timeout is None or timeout <= 0:
                return super().select(timeout)
            due_s = time.monotonic() + timeout
            if timeout > AWAKE_S:
                select.select((self.fileno(),), (), (), timeout - AWAKE_S)
            while not (ready := super().select(0)) and time.monotonic() < due_s:
                pass
            return ready

else:
    _Selector = selectors.DefaultSelector


def punctual_loop() -> asyncio.AbstractEventLoop:
    """A loop whose timers are exact: the usual one rounds them up to milliseconds, which uploads would last longer.

    What a device paces by them is the link, and a demo the camera: they should not take longer than they are said to.
    """
    _wake_at_once()
    return asyncio.SelectorEventLoop(_Selector())


def _wake_at_once() -> None:
    """Have the system put off no timer of this thread, as it does by 50 us to save wake-ups. Linux only."""
    if sys.platform == "linux":
        set_timer_slack = 29  # PR_SET_TIMERSLACK in linux/prctl.h
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(set_timer_slack, 1, 0, 0, 0)
