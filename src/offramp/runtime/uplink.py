"""What a device sends its edge, paced as its link carries it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from offramp.link import Link
from offramp.runtime.device_job import Unasked
from offramp.runtime.protocol import CodedUpload, Probe, Upload, encode, fits


class Uplink:
    """Frames that leave the device when the link has carried them, and reach the edge after the link's delay.

    `sender` is called when one begins to cross, and what it gives when the frame should be there: one that was begun
    in a session is none of the next, whose edge has not heard of it. Methods give the frame's bytes.
    """

    def __init__(
        self,
        link: Link,
        clock: Callable[[], float],
        sender: Callable[[], Callable[[bytes], None]],
        largest_probe: int,
    ) -> None:
        self._link = link
        self._clock = clock
        self._sender = sender
        self._largest_probe = largest_probe

    def upload(
        self,
        upload: Upload | CodedUpload,
        deadline_s: float,
        unasked: Unasked | None,
        carried: Callable[[], None],
    ) -> int:
        """Send a task's tensors, saying how long before its deadline they are there."""
        crossed_s = self._link.carry(self._clock(), len(encode(upload)))
        remaining_s = fits(deadline_s - crossed_s - self._link.delay_s)
        upload = msgspec.structs.replace(upload, remaining_s=remaining_s)
        return self._hand_over(
            encode(upload if unasked is None else unasked.begun(upload)), crossed_s, carried
        )

    def probe(self, size_bytes: int, carried: Callable[[], None]) -> int:
        """Send so many bytes of nothing, or as many as a frame may have."""
        frame = encode(Probe(bytes(min(size_bytes, self._largest_probe))))
        return self._hand_over(frame, self._link.carry(self._clock(), len(frame)), carried)

    def _hand_over(self, frame: bytes, crossed_s: float, carried: Callable[[], None]) -> int:
        loop, now_s = asyncio.get_running_loop(), self._clock()
        there_s = max(0.0, crossed_s + self._link.delay_s - now_s)
        # Of two at the same instant the first is served first: the frame is what somebody waits for.
        loop.call_later(there_s, self._sender(), frame)
        loop.call_later(max(0.0, crossed_s - now_s), carried)
        return len(frame)
