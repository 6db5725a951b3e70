"""The codec gives back what it was given, refuses everything else, and takes no memory before it has checked."""

from __future__ import annotations

import math
import typing

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from offramp.model.tensors import TensorSpec
from offramp.runtime import protocol
from offramp.runtime.protocol import Announce, Answer, Attach, Hello, Message, Upload, encode
from offramp.runtime.wire import (
    FRAME_OVERHEAD_BYTES,
    ProtocolError,
    WireTensor,
    array_of,
    arrays_of,
    largest_frame,
    wire_of,
    wires_of,
)

DECODERS = {
    protocol.FromDevice: protocol.decode_from_device,
    protocol.ToDevice: protocol.decode_to_device,
    protocol.FromUploader: protocol.decode_from_uploader,
    protocol.ToUploader: protocol.decode_to_uploader,
}
KINDS = [(kind, decode) for union, decode in DECODERS.items() for kind in typing.get_args(union)]
SPECS = (TensorSpec("a", "float32", (None, 3, 2)), TensorSpec("b", "uint8", (None, 5)))

tensors = st.builds(
    WireTensor,
    name=st.sampled_from(["a", "b"]),
    dtype=st.sampled_from(["float32", "uint8", "object", "float64"]),
    shape=st.lists(st.integers(0, 2**40), max_size=4).map(tuple),
    data=st.binary(max_size=64).map(memoryview),
)


def messages(kind: type[Message]) -> st.SearchStrategy[Message]:
    """Valid messages of a kind, drawn from its annotations."""
    plain: dict[object, st.SearchStrategy[object]] = {
        protocol.Name: st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
        protocol.Number: st.integers(0, 2**53),
        protocol.Count: st.integers(1, 10**6),
        protocol.Choice: st.integers(0, 1000),
        protocol.Seconds: st.floats(0, 1e7),
        protocol.Signed: st.floats(-1e7, 1e7),
        protocol.Share: st.floats(0, 1),
        protocol.Rate: st.floats(1e-3, 1e15),
        protocol.Weight: st.floats(0, 1e6),
        protocol.Factor: st.floats(1e-3, 1e6),
        protocol.Token: st.binary(min_size=16, max_size=16),
        protocol.Text: st.text(max_size=100),
        protocol.Padding: st.binary(max_size=64),
        bool: st.booleans(),
        WireTensor: tensors,
        protocol.CodecName: st.from_regex(r"[a-z0-9][a-z0-9+._-]{0,31}", fullmatch=True),
        memoryview: st.binary(max_size=64).map(memoryview),
        int: st.integers(0, 9),
    }
    fields = {}
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        if name == "model_sha256":
            fields[name] = st.text("0123456789abcdef", min_size=64, max_size=64)
        elif name == "tensors":
            fields[name] = st.lists(tensors, max_size=3).map(tuple)
        elif name == "codecs":
            fields[name] = st.lists(plain[protocol.CodecName], max_size=3).map(tuple)
        elif name == "kinds":
            kinds = st.tuples(plain[protocol.Count], plain[protocol.Seconds])
            fields[name] = st.lists(kinds, max_size=protocol.MAX_KINDS).map(tuple)
        elif name == "upload":
            fields[name] = st.one_of(messages(protocol.Upload), messages(protocol.CodedUpload))
        elif name == "reason":
            fields[name] = st.sampled_from(list(protocol.Refusal))
        else:
            fields[name] = plain[hint]
    return st.builds(kind, **fields)


@given(st.sampled_from(KINDS).flatmap(lambda pair: st.tuples(messages(pair[0]), st.just(pair[1]))))
def test_what_is_decoded_is_what_was_encoded(
    drawn: tuple[Message, typing.Callable[[bytes], Message]],
) -> None:
    message, decode = drawn
    assert decode(encode(message)) == message


@given(
    st.sampled_from(KINDS).flatmap(lambda pair: messages(pair[0])),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4),
    st.integers(0, 10**6),
    st.binary(max_size=8),
)
@settings(max_examples=1000)
def test_mutated_frames_are_messages_or_typed_refusals(
    message: Message, flips: list[tuple[int, int]], keep: int, tail: bytes
) -> None:
    frame = bytearray(encode(message))
    for position, value in flips:
        frame[position % len(frame)] = value
    mutated = bytes(frame[: keep % (len(frame) + 1)]) + tail
    for decode in DECODERS.values():
        try:
            decoded = decode(mutated)
        except ProtocolError:
            continue
        # Whatever passes obeys the declared limits: NaN and infinities among them.
        for value in msgspec.structs.asdict(decoded).values():
            assert not isinstance(value, float) or math.isfinite(value)
        if isinstance(decoded, Upload):
            with pytest.raises(ProtocolError):
                arrays_of(decoded.tensors, (TensorSpec("none", "float32", (None, 1)),), decoded.size)


@given(st.binary(max_size=200))
@settings(max_examples=500)
def test_noise_is_refused_or_a_message(noise: bytes) -> None:
    for decode in DECODERS.values():
        try:
            decode(noise)
        except ProtocolError:
            continue


@pytest.mark.parametrize(
    "frame", [b"", b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xc1"]
)
def test_bombs_are_refused(frame: bytes) -> None:
    for decode in DECODERS.values():
        with pytest.raises(ProtocolError):
            decode(frame)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, 1e9])
def test_numbers_out_of_range_are_refused(value: float) -> None:
    announce = Announce(0, 1, 0.1, 0.1, 0, value, 0.0, 1.0, 0.0, 0.0)
    with pytest.raises(ProtocolError, match="float"):
        protocol.decode_from_device(encode(announce))


@pytest.mark.parametrize("name", ["", "-a", "a/b", "a b", "x" * 65, "a\n", "ä"])
def test_device_names_are_plain(name: str) -> None:
    hello = Hello(1, name, 0, "0" * 64, 1.0, 1.0, 0.0, (), True)
    with pytest.raises(ProtocolError):
        protocol.decode_from_device(encode(hello))


@given(
    st.sampled_from(["float32", "float64", "uint8", "int64", "bool", "float16"]),
    st.integers(1, 4),
    st.data(),
)
def test_arrays_cross_unchanged(dtype: str, size: int, data: st.DataObject) -> None:
    finite = {"allow_nan": False, "allow_infinity": False} if dtype.startswith("float") else {}
    array = data.draw(hnp.arrays(dtype, (size, 3, 2), elements=hnp.from_dtype(np.dtype(dtype), **finite)))
    strided = np.asfortranarray(array)
    spec = TensorSpec("t", dtype, (None, 3, 2))
    frame = encode(Upload(0, 1, 1, size, 0.0, wires_of({"t": strided})))
    upload = protocol.decode_from_uploader(frame)
    assert isinstance(upload, Upload)
    back = arrays_of(upload.tensors, (spec,), size)["t"]
    assert back.dtype == array.dtype
    assert np.array_equal(back, array)
    # The array lies on the frame's memory: nothing was taken before the check, nothing copied after it.
    assert not back.flags.owndata


def good(size: int = 2) -> dict[str, np.ndarray[typing.Any, typing.Any]]:
    return {"a": np.ones((size, 3, 2), np.float32), "b": np.ones((size, 5), np.uint8)}


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"a": good()["a"]}, "must be"),
        ({**good(), "c": good()["a"]}, "must be"),
        ({**good(), "a": good()["a"].astype(np.float64)}, "float64"),
        ({**good(), "a": good(3)["a"]}, "float32"),
        ({**good(), "a": good()["a"].reshape(2, 2, 3)}, "float32"),
        ({**good(), "a": np.full((2, 3, 2), np.nan, np.float32)}, "NaN"),
        ({**good(), "a": np.full((2, 3, 2), np.inf, np.float32)}, "NaN or infinity"),
    ],
)
def test_tensors_that_the_model_does_not_declare_are_refused(
    tensors: dict[str, np.ndarray[typing.Any, typing.Any]], says: str
) -> None:
    with pytest.raises(ProtocolError, match=says):
        arrays_of(wires_of(tensors), SPECS, 2)


def test_a_declared_shape_without_its_bytes_is_refused() -> None:
    wire = wire_of("b", good()["b"])
    with pytest.raises(ProtocolError, match="bytes"):
        array_of(msgspec.structs.replace(wire, data=wire.data[:-1]), SPECS[1], 2)
    twice = (wire, wire)
    with pytest.raises(ProtocolError):
        arrays_of(twice, SPECS, 2)


@given(st.integers(1, 40))
def test_the_cap_holds_the_largest_valid_frame_and_little_more(size: int) -> None:
    cap = largest_frame([SPECS, SPECS[:1]], size)
    frame = encode(Upload(2**53, 1000, 1000, size, -1e7, wires_of(good(size))))
    payload = size * sum(spec.bytes_per_input for spec in SPECS)
    assert len(frame) <= cap == payload + FRAME_OVERHEAD_BYTES


def test_one_stream_does_not_take_the_other_ones_messages() -> None:
    attach = encode(Attach(b"0" * 16))
    with pytest.raises(ProtocolError):
        protocol.decode_from_device(attach)
    answer = encode(Answer(0, wire_of("a", good()["a"]), 0.0, 0.0))
    with pytest.raises(ProtocolError):
        protocol.decode_from_uploader(answer)
