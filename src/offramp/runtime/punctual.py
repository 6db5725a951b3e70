"""An event loop whose timers are exact, and which can be awake when something is due."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import math
import select
import selectors
import sys
import time
from collections.abc import Callable

AWAKE_S = 150e-6
"""How long before a timer is due the processor is no longer given up: to be woken takes about as long."""
AROUND_S = 200e-6
"""How long before and behind an instant at which something is expected the processor is not given up either."""
LEARNT = 0.2
"""Weight of a new miss in the running mean by which expectations are put right."""
FAR_S = 0.005
"""What comes so much beside its expectation says nothing of others."""
EVEN_S = 0.001
"""By how much two intervals may differ that are taken for a rhythm."""
WAKE_S = 0.006, 0.003, 0.001
"""How long before it is due what it needs is tried: behind a rest of 10 ms every step takes a tenth of a millisecond
more."""
SHORTEST_S = 0.01
"""What comes at shorter intervals keeps everything at hand by itself."""

if sys.platform == "linux":

    class _Selector(selectors.EpollSelector):
        """`EpollSelector`, which rounds every wait up to a millisecond, waiting to the microsecond.

        `SelectSelector` is as exact, but does not get over a descriptor that is closed while it is watched, as those of
        gRPC are when its last connection goes. Until `awake_until_s` it does not give up the processor at all.
        """

        awake_until_s = -math.inf

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            if timeout is not None and timeout <= 0:
                return super().select(timeout)
            now_s = time.monotonic()
            due_s = math.inf if timeout is None else now_s + timeout
            if self.awake_until_s > now_s and (ready := self._watched(min(due_s, self.awake_until_s))):
                return ready
            left_s = due_s - time.monotonic()
            if math.isinf(left_s):
                return super().select(None)
            if left_s > AWAKE_S:
                select.select((self.fileno(),), (), (), left_s - AWAKE_S)
            return self._watched(due_s)

        def _watched(self, until_s: float) -> list[tuple[selectors.SelectorKey, int]]:
            while not (ready := super().select(0)) and time.monotonic() < until_s:
                pass
            return ready

else:
    _Selector = selectors.DefaultSelector


class PunctualLoop(asyncio.SelectorEventLoop):
    """A loop whose timers are exact: the usual one rounds them up to milliseconds, which uploads would last longer.

    What a device paces by them is the link, and a demo the camera: they should not take longer than they are said to.
    """

    def __init__(self) -> None:
        _wake_at_once()
        self._awake = _Selector()
        super().__init__(self._awake)

    def attend(self, from_s: float, until_s: float) -> asyncio.TimerHandle:
        """Do not sleep between two instants of this loop's time, unless the handle is cancelled before.

        Changes nothing on other systems than Linux.
        """
        return self.call_at(from_s, self._stay_awake, until_s)

    def _stay_awake(self, until_s: float) -> None:
        if sys.platform == "linux":
            self._awake.awake_until_s = until_s


class Expectation:
    """Has the running loop awake when something comes that was foretold, and learns by how much that is missed.

    To be woken takes a tenth of a millisecond and more on each side of a task that has crossed a fast link in one. For
    what is not foretold nothing changes. Other loops than `PunctualLoop` sleep as they do.
    """

    def __init__(self) -> None:
        self._late_s = 0.0
        self._foretold_s: float | None = None
        self._awake: asyncio.TimerHandle | None = None

    def foretell(self, instant_s: float) -> None:
        """It should come at this instant of the loop's time."""
        self._foretold_s = instant_s
        loop, expected_s = asyncio.get_running_loop(), instant_s + self._late_s
        if isinstance(loop, PunctualLoop):
            if self._awake is not None:
                self._awake.cancel()  # whoever foretells again and again must not fill the loop with timers
            self._awake = loop.attend(expected_s - AROUND_S, expected_s + AROUND_S)

    def came(self, now_s: float) -> None:
        """It is here."""
        foretold_s, self._foretold_s = self._foretold_s, None
        if foretold_s is not None and abs(miss_s := now_s - foretold_s) < FAR_S:
            self._late_s += LEARNT * (miss_s - self._late_s)


class Rhythm:
    """Tells when the next is due of what comes at even intervals, as a camera's pictures do."""

    def __init__(self) -> None:
        self._last_s = -math.inf
        self._interval_s = math.inf

    def came(self, now_s: float) -> float | None:
        """One is here; when the next should be, or None if the last two intervals were not alike, or were short."""
        interval_s, self._last_s = now_s - self._last_s, now_s
        even = abs(interval_s - self._interval_s) <= EVEN_S
        self._interval_s = interval_s
        return now_s + interval_s if even and interval_s >= SHORTEST_S else None


class Wake:
    """Makes a call, which goes the way that is to be at hand, shortly before something is due that has a rhythm."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._rhythm = Rhythm()

    def came(self, instant_s: float) -> None:
        """One has come, at this instant of the running loop's time."""
        next_s = self._rhythm.came(instant_s)
        if next_s is None:
            return
        loop = asyncio.get_running_loop()
        for lead_s in WAKE_S:
            if next_s - lead_s > loop.time():
                loop.call_at(next_s - lead_s, self._call)


def _wake_at_once() -> None:
    """Have the system put off no timer of this thread, as it does by 50 us to save wake-ups. Linux only."""
    if sys.platform == "linux":
        set_timer_slack = 29  # PR_SET_TIMERSLACK in linux/prctl.h
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(set_timer_slack, 1, 0, 0, 0)
