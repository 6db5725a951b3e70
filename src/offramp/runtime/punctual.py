"""An event loop whose timers are exact."""

from __future__ import annotations

import asyncio
import select
import selectors
import sys

if sys.platform == "linux":

    class _Selector(selectors.EpollSelector):
        """`EpollSelector`, which rounds every wait up to a millisecond, waiting to the microsecond.

        `SelectSelector` is as exact, but does not get over a descriptor that is closed while it is watched, as those of
        gRPC are when its last connection goes.
        """

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            if timeout is not None and timeout > 0:
                select.select((self.fileno(),), (), (), timeout)
                timeout = 0.0
            return super().select(timeout)

else:
    _Selector = selectors.DefaultSelector


def punctual_loop() -> asyncio.AbstractEventLoop:
    """A loop whose timers are exact: the usual one rounds them up to milliseconds, which uploads would last longer."""
    return asyncio.SelectorEventLoop(_Selector())
