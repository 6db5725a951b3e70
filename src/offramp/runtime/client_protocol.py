"""What travels between an edge and a program beside it that has inputs and computes nothing of the model.

One connection carries everything: frames of four bytes of length, little-endian, and a message as in `protocol`.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from offramp.runtime.protocol import (
    MAX_TENSORS,
    Bye,
    Choice,
    Closing,
    Count,
    Declined,
    Hello,
    Message,
    Number,
    Ping,
    Pong,
    Refused,
    Seconds,
    Share,
    Signed,
    Welcome,
    decode_with,
    encode,
)
from offramp.runtime.wire import ProtocolError, WireTensor

LENGTH_BYTES = 4
ROOM_BYTES = 1 << 16
"""What is read at a time. Left to itself asyncio allocates four times as much anew for every read."""


class Offer(Message, frozen=True):
    """A task with its input: to be decided, and computed, without more words. `margin`: as in `Announce`."""

    sequence: Number
    size: Count
    budget_s: Seconds
    remaining_s: Signed
    margin: Share
    tensors: Annotated[tuple[WireTensor, ...], Meta(max_length=MAX_TENSORS)]


class Served(Message, frozen=True):
    """The answer to an `Offer`: the exit that was decided, its logits, and the seconds that it waited and took."""

    sequence: Number
    exit: Choice
    logits: WireTensor
    waited_s: Seconds
    computed_s: Seconds


FromClient = Hello | Offer | Ping | Bye
ToClient = Welcome | Refused | Served | Declined | Pong | Closing
_from_client: msgspec.msgpack.Decoder[FromClient] = msgspec.msgpack.Decoder(FromClient)
_to_client: msgspec.msgpack.Decoder[ToClient] = msgspec.msgpack.Decoder(ToClient)


def decode_from_client(frame: bytes) -> FromClient:
    """A message of a client. Raises ProtocolError."""
    return decode_with(_from_client, frame)


def decode_to_client(frame: bytes) -> ToClient:
    """A message of an edge. Raises ProtocolError."""
    return decode_with(_to_client, frame)


def framed(message: Message) -> bytes:
    """A message as it travels."""
    frame = encode(message)
    return len(frame).to_bytes(LENGTH_BYTES, "little") + frame


class Frames:
    """Takes bytes as they come and gives whole frames, none longer than `most_bytes`."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._room: memoryview | None = None
        self._held = bytearray()

    def room(self) -> memoryview:
        """Where the next bytes are to be put, for `filled`; the same room every time."""
        if self._room is None:
            self._room = memoryview(bytearray(ROOM_BYTES))
        return self._room

    def filled(self, count: int) -> list[bytes]:
        """The frames that are whole with so many bytes in the room. Raises ProtocolError for one that is too long."""
        return self.feed(self.room()[:count])

    def feed(self, data: bytes | memoryview) -> list[bytes]:
        """The frames that are whole with these bytes. Raises ProtocolError for one that is too long."""
        if self._held:
            self._held += data
        source = self._held or data
        frames, at = [], 0
        with memoryview(source) as view:
            while len(view) - at >= LENGTH_BYTES:
                begin = at + LENGTH_BYTES
                length = int.from_bytes(view[at:begin], "little")
                if length > self._most_bytes:
                    raise ProtocolError(f"a frame of {length} bytes: at most {self._most_bytes}")
                if len(view) < begin + length:
                    break
                frames.append(bytes(view[begin : begin + length]))
                at = begin + length
        if source is self._held:
            del self._held[:at]
        elif at < len(data):
            self._held += data[at:]
        return frames
