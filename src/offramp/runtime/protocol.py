"""What travels between a device and its edge, as typed values, and its bytes. No input or output here.

Every message is a msgpack array with a tag; unknown tags, missing or extra fields, numbers out of range, NaN and
infinities are refused when it is decoded. Tensors in it are those of `offramp.runtime.wire`.

Clocks are not compared: a device says how much of a budget is left, never what time it is.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from offramp.errors import OfframpError
from offramp.runtime.wire import ProtocolError, WireTensor

VERSION = 5
MAX_TENSORS = 16
MAX_CODECS = 64
MAX_KINDS = 64
MAX_PADDING = 2**17
CONTROL_BYTES = 16 * 1024
"""Cap on a control message."""

Name = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z")]
CodecName = Annotated[str, Meta(min_length=1, max_length=32, pattern=r"^[a-z0-9][a-z0-9+._-]*\Z")]
Number = Annotated[int, Meta(ge=0, le=2**53)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Choice = Annotated[int, Meta(ge=0, le=1000)]
Seconds = Annotated[float, Meta(ge=0, le=1e7)]
Signed = Annotated[float, Meta(ge=-1e7, le=1e7)]
Rate = Annotated[float, Meta(ge=1e-6, le=1e15)]
Weight = Annotated[float, Meta(ge=0, le=1e6)]
Factor = Annotated[float, Meta(ge=1e-6, le=1e6)]
Share = Annotated[float, Meta(ge=0, le=1)]
Token = Annotated[bytes, Meta(min_length=16, max_length=16)]
Padding = Annotated[bytes, Meta(max_length=MAX_PADDING)]
Text = Annotated[str, Meta(max_length=400)]


class Refusal(StrEnum):
    """Why the edge does not do what was asked."""

    POLICY = "policy"  # no option is worth it, says the policy
    EXPIRED = "expired"  # the deadline passed before the edge could start
    TOO_LATE = "too-late"  # the edge could start, but not finish in time
    OVERLOADED = "overloaded"  # the edge's queue is full, or the device announces too much
    REPEATED = "repeated"  # this task, or a later one, has been announced before
    DRAINING = "draining"  # the edge is stopping
    TOO_LARGE = "too-large"  # more inputs than the edge takes in one task
    UNKNOWN_TASK = "unknown-task"  # no such task is expected from this device, or not with this exit and cut
    BAD_TENSORS = (
        "bad-tensors"  # not what the model declares at this cut, or not what its codec makes of that
    )
    INTERNAL = "internal"  # the edge's own mistake
    # A session is refused for these:
    VERSION = "version"
    MODEL = "model"
    CODEC = (
        "codec"  # the device does not know what the edge decides with; or an upload's is not the decided one
    )
    ID_IN_USE = "id-in-use"
    FULL = "full"
    PROTOCOL = "protocol"
    IDENTITY = "identity"  # the certificate is not this device's
    REVOKED = "revoked"


class Message(Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=True):
    """Base of all messages."""


# Device to edge, control -------------------------------------------------------------------------------------


class Hello(Message, frozen=True):
    """Opens a session. `slowdown` is on the bundle's profile; `epoch` counts the device's starts.

    `codecs` are those that the device can be told to use, beside sending tensors as they are. `steady`: whether the
    device paces its uploads at that bandwidth, so that it can be taken at its word. `kinds`: sizes and budgets of tasks
    that it is going to have, as far as it knows.
    """

    version: int
    device: Name
    epoch: Number
    model_sha256: Annotated[str, Meta(min_length=64, max_length=64)]
    slowdown: Factor
    bandwidth_bytes_per_s: Rate
    link_delay_s: Seconds
    codecs: Annotated[tuple[CodecName, ...], Meta(max_length=MAX_CODECS)]
    steady: bool
    kinds: Annotated[tuple[tuple[Count, Seconds], ...], Meta(max_length=MAX_KINDS)] = ()


class Announce(Message, frozen=True):
    """A task has arrived, and how far behind its device and link are, not counting undecided tasks.

    `decided` is how many verdicts of the session the device has taken in: the edge adds what later ones cost.
    `round_trip_s` is what the last decision took, 0 if there was none. `margin` is the share of the budget that
    the plan should leave free, because predictions have been off by so much.
    """

    sequence: Number
    size: Count
    budget_s: Seconds
    remaining_s: Signed
    decided: Number
    device_free_in_s: Seconds
    link_free_in_s: Seconds
    slowdown: Factor
    round_trip_s: Seconds
    margin: Share


class Withdraw(Message, frozen=True):
    """A decided task will not reach the edge, or its answer is no longer wanted."""

    sequence: Number


class Sending(Message, frozen=True):
    """The next message on the stream of tensors, of so many bytes, begins to cross."""

    size_bytes: Number


class Ping(Message, frozen=True):
    """Asks for a sign of life on the stream on which it comes."""

    number: Number


class Bye(Message, frozen=True):
    """The device is done; it has no task in flight."""


# Edge to device, control -------------------------------------------------------------------------------------


class Welcome(Message, frozen=True):
    """The session is open; `session` binds the stream of tensors to it. The weights are those of Eq. 1."""

    version: int
    session: Token
    policy: Text
    accuracy_weight: Weight
    accuracy_slope: Weight


class Refused(Message, frozen=True):
    """The session is not opened, or is closed."""

    reason: Refusal
    value: Text
    allowed: Text
    remedy: Text


class Verdict(Message, frozen=True):
    """The decision on a task; exit 0 turns it away for `reason`. Predicted instants count from its arrival.

    `bandwidth_bytes_per_s` is what the edge takes the device's uplink for.
    """

    sequence: Number
    exit: Choice
    cut: Choice
    codec: CodecName
    reason: Refusal | None
    device_start_s: Signed
    send_s: Signed
    edge_start_s: Signed
    finish_s: Signed
    bandwidth_bytes_per_s: Rate


class Standing(Message, frozen=True):
    """What to do at once, without asking, with a task of this size and budget that finds its device and link idle.

    It stands until the next for the same kind of task, or until `Reconsider`. Predicted instants count from the task's
    begin; `bandwidth_bytes_per_s` as in `Verdict`.
    """

    size: Count
    budget_s: Seconds
    exit: Choice
    cut: Choice
    codec: CodecName
    send_s: Seconds
    edge_start_s: Seconds
    finish_s: Seconds
    bandwidth_bytes_per_s: Rate


class Reconsider(Message, frozen=True):
    """Nothing stands any more: every task is to be announced again."""


class Pong(Message, frozen=True):
    """Answers a `Ping`."""

    number: Number


class Closing(Message, frozen=True):
    """The edge takes no new tasks; it finishes those that it has decided."""


# The stream of tensors ---------------------------------------------------------------------------------------


class Attach(Message, frozen=True):
    """First message of the stream."""

    session: Token


class Upload(Message, frozen=True):
    """What crosses at the cut of a decided task, with what is left of its budget as it reaches the edge."""

    sequence: Number
    exit: Choice
    cut: Choice
    size: Count
    remaining_s: Signed
    tensors: Annotated[tuple[WireTensor, ...], Meta(max_length=MAX_TENSORS)]


class CodedUpload(Message, frozen=True):
    """The same with a codec: what `offramp.model.codecs` makes of the cut's tensors, whose size it does not say."""

    sequence: Number
    exit: Choice
    cut: Choice
    size: Count
    remaining_s: Signed
    codec: CodecName
    payload: memoryview


class Begun(Message, frozen=True):
    """A task that was not announced, since a decision for its kind stands: what crosses, and what goes with it.

    `budget_s`, `slowdown`, `margin`: as in `Announce`.
    """

    budget_s: Seconds
    slowdown: Factor
    margin: Share
    upload: Upload | CodedUpload


class Probe(Message, frozen=True):
    """Nothing but bytes, whose way shows how the link is."""

    padding: Padding


class Answer(Message, frozen=True):
    """The logits of a task, and the seconds that it waited and took on the edge."""

    sequence: Number
    logits: WireTensor
    waited_s: Seconds
    computed_s: Seconds


class Declined(Message, frozen=True):
    """The edge does not compute an upload, or does not take an offer."""

    sequence: Number
    reason: Refusal


FromDevice = Hello | Announce | Withdraw | Sending | Ping | Bye
ToDevice = Welcome | Refused | Verdict | Standing | Reconsider | Pong | Closing
FromUploader = Attach | Upload | CodedUpload | Begun | Probe | Ping
Result = Answer | Declined
ToUploader = Result | Pong

_Kind = TypeVar("_Kind")
_encoder = msgspec.msgpack.Encoder()
_from_device: msgspec.msgpack.Decoder[FromDevice] = msgspec.msgpack.Decoder(FromDevice)
_to_device: msgspec.msgpack.Decoder[ToDevice] = msgspec.msgpack.Decoder(ToDevice)
_from_uploader: msgspec.msgpack.Decoder[FromUploader] = msgspec.msgpack.Decoder(FromUploader)
_to_uploader: msgspec.msgpack.Decoder[ToUploader] = msgspec.msgpack.Decoder(ToUploader)


def encode(message: Message) -> bytes:
    """A message's bytes."""
    return _encoder.encode(message)


def decode_from_device(frame: bytes) -> FromDevice:
    """A control message of a device. Raises ProtocolError."""
    return decode_with(_from_device, frame)


def decode_to_device(frame: bytes) -> ToDevice:
    """A control message of an edge. Raises ProtocolError."""
    return decode_with(_to_device, frame)


def decode_from_uploader(frame: bytes) -> FromUploader:
    """A message of a device's stream of tensors. Raises ProtocolError."""
    return decode_with(_from_uploader, frame)


def decode_to_uploader(frame: bytes) -> ToUploader:
    """A message of an edge on the stream of tensors. Raises ProtocolError."""
    return decode_with(_to_uploader, frame)


def decode_with(decoder: msgspec.msgpack.Decoder[_Kind], frame: bytes) -> _Kind:
    """A message of the decoder's kinds. Raises ProtocolError."""
    # A frame nested thousands of levels deep makes the decoder recurse: Python says so with RecursionError.
    try:
        return decoder.decode(frame)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ProtocolError(str(error)) from None


def is_name(text: str) -> bool:
    """Whether a device may be called this."""
    try:
        msgspec.convert(text, Name)
    except msgspec.ValidationError:
        return False
    return True


def fits(value: Any) -> float:
    """A duration as messages hold it: clipped into their range."""
    return min(max(float(value), -1e7), 1e7)


def check_name(text: str) -> None:
    """Raises OfframpError unless a device may be called this."""
    if not is_name(text):
        allowed = "1 to 64 letters, digits, dots, dashes, underscores"
        raise OfframpError("id", text, allowed, "choose a plainer one")
