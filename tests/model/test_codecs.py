"""Codecs: what comes out is what went in, to within what the codec says, and nothing foreign is taken for a payload."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.errors import MissingExtraError, OfframpError
from offramp.model import codecs as module
from offramp.model.codecs import CODECS, Codec, chosen_codecs, codecs_for, find_codec, named_codecs
from offramp.model.tensors import Array, TensorSpec

FLOATS = ("float16", "float32", "float64")
LOSSLESS = [name for name, codec in CODECS.items() if codec.lossless]


@st.composite
def cuts(draw: st.DrawFn) -> tuple[tuple[TensorSpec, ...], dict[str, Array], int]:
    """One to three tensors that cross together, for 1 to 10 inputs: any layout, constant ones and ranges among them."""
    size = draw(st.integers(1, 10))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    specs, tensors = [], {}
    for number in range(draw(st.integers(1, 3))):
        others = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
        batch = draw(st.integers(0, len(others)))
        shape = (*others[:batch], None, *others[batch:])
        spec = TensorSpec(f"t{number}", draw(st.sampled_from([*FLOATS, "uint8", "int64"])), shape)
        specs.append(spec)
        tensors[spec.name] = _values(draw, rng, spec, size)
    return tuple(specs), tensors, size


def _values(draw: st.DrawFn, rng: np.random.Generator, spec: TensorSpec, size: int) -> Array:
    dtype, shape = np.dtype(spec.dtype), spec.shape_at(size)
    if dtype.kind != "f":
        return rng.integers(0, 200, shape).astype(dtype)
    kind = draw(st.sampled_from(["normal", "constant", "relu", "tiny", "huge", "channels"]))
    values = rng.standard_normal(shape)
    if kind == "constant":
        values = np.full(shape, draw(st.sampled_from([0.0, -3.7, 1e-3])))
    elif kind == "relu":
        values = np.maximum(values, 0.0)
    elif kind == "tiny":
        values = values * 1e-6
    elif kind == "huge":
        values = np.sign(values) * np.finfo(dtype).max if dtype != np.float64 else values * 1e30
    elif kind == "channels":
        values = values * np.geomspace(1e-2, 1e2, shape[-1]) + np.arange(shape[-1])
    return values.astype(dtype)


@settings(max_examples=300)
@given(cuts(), st.sampled_from(sorted(CODECS)))
def test_what_arrives_is_within_half_a_step_of_what_left(
    cut: tuple[tuple[TensorSpec, ...], dict[str, Array], int], name: str
) -> None:
    specs, tensors, size = cut
    codec = find_codec(name)
    payload = codec.encode(tensors, specs)
    arrived = codec.decode(payload, specs, size)
    assert list(arrived) == [spec.name for spec in specs]
    for spec in specs:
        left, came = tensors[spec.name], arrived[spec.name]
        assert came.dtype == left.dtype
        assert came.shape == left.shape
        assert came.flags.c_contiguous
        if name in LOSSLESS or left.dtype.kind != "f":
            assert (came == left).all()
        elif name.startswith("fp16"):
            _within_a_half(left, came)
        else:
            _within_half_a_step(left, came, spec, by_channel="channel" in name)


def _within_a_half(left: Array, came: Array) -> None:
    with np.errstate(over="ignore"):
        nearest = left.astype(np.float16)
    fits = np.isfinite(nearest)
    assert (came[fits] == nearest[fits].astype(left.dtype)).all()
    assert (np.abs(came[~fits].astype(np.float64)) == float(np.finfo(np.float16).max)).all()


def _within_half_a_step(left: Array, came: Array, spec: TensorSpec, *, by_channel: bool) -> None:
    """Groups are written out again here, element by element: one input, or one channel."""
    wide, back = left.astype(np.float64), came.astype(np.float64)
    others = [axis for axis in range(left.ndim) if axis != spec.batch_axis]
    axis = spec.batch_axis
    if by_channel and len(others) >= 2:
        axis = others[0] if len(others) > 2 else others[-1]
        if all(left.shape[other] == 1 for other in others if other != axis):
            axis = -1
    elif by_channel:
        axis = -1
    if axis < 0:
        # Nothing to share a scale with: such a tensor is not quantised at all.
        assert (left == came).all()
        return
    for index in range(left.shape[axis]):
        group, found = wide.take(index, axis), back.take(index, axis)
        step = (group.max() - group.min()) / 255
        rounding = np.abs(group).max() * (2.0**-10 if left.dtype == np.float16 else 2.0**-21) + 1e-40
        assert np.abs(found - group).max() <= step / 2 * (1 + 1e-3) + rounding


@given(cuts(), st.sampled_from(sorted(CODECS)))
def test_bytes_before_compression_follow_from_the_declaration(
    cut: tuple[tuple[TensorSpec, ...], dict[str, Array], int], name: str
) -> None:
    specs, tensors, size = cut
    codec = find_codec(name)
    length = len(codec.encode(tensors, specs))
    if "+" not in name:
        assert length == codec.packed_bytes(specs, size)
    else:
        # What cannot be compressed must not grow by more than a frame may.
        assert length <= codec.packed_bytes(specs, size) * 1.005 + 64


@settings(max_examples=200)
@given(cuts(), st.sampled_from(sorted(CODECS)), st.data())
def test_payloads_that_are_no_payloads_are_refused_by_name(
    cut: tuple[tuple[TensorSpec, ...], dict[str, Array], int], name: str, data: st.DataObject
) -> None:
    specs, tensors, size = cut
    codec = find_codec(name)
    payload = codec.encode(tensors, specs)
    cut_short = payload[: data.draw(st.integers(0, len(payload) - 1))]
    for foreign in (cut_short, payload + b"\0", b"", b"\x28\xb5\x2f\xfd" + payload):
        with pytest.raises(OfframpError, match=r"payload|scale|values"):
            codec.decode(foreign, specs, size)


@given(st.binary(max_size=200), st.sampled_from(sorted(CODECS)))
def test_noise_is_refused_or_is_finite(noise: bytes, name: str) -> None:
    specs = (TensorSpec("a", "float32", (None, 3, 2, 2)),)
    try:
        arrived = find_codec(name).decode(noise, specs, 1)
    except OfframpError:
        return
    assert np.isfinite(arrived["a"]).all()


@pytest.mark.parametrize("name", sorted(CODECS))
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused_with_their_tensors_name(name: str, value: float) -> None:
    specs = (TensorSpec("relu7", "float32", (None, 4, 4, 4)),)
    tensors = {"relu7": np.ones((2, 4, 4, 4), dtype=np.float32)}
    tensors["relu7"][1, 2, 3, 0] = value
    with pytest.raises(OfframpError, match="relu7"):
        find_codec(name).encode(tensors, specs)


@pytest.mark.parametrize("name", ["fp16", "uint8", "uint8-channel"])
def test_parameters_that_are_none_are_refused(name: str) -> None:
    specs = (TensorSpec("relu7", "float32", (None, 2, 4, 4)),)
    payload = bytearray(find_codec(name).encode({"relu7": np.ones((1, 2, 4, 4), np.float32)}, specs))
    payload[0:4] = b"\xff\xff\xff\xff"
    with pytest.raises(OfframpError, match="relu7"):
        find_codec(name).decode(bytes(payload), specs, 1)
    negative = np.array([0.0, -1.0], dtype="<f4").tobytes()
    if name.startswith("uint8"):
        with pytest.raises(OfframpError, match="scale of relu7"):
            find_codec(name).decode(negative + bytes(payload[8:]), specs, 1)


def test_a_bomb_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    import zstandard

    specs = (TensorSpec("a", "float32", (None, 8)),)
    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 28))
    assert len(bomb) < 100_000
    unpacked: list[Any] = []
    monkeypatch.setattr(zstandard, "ZstdDecompressor", lambda **options: unpacked.append(options))
    with pytest.raises(OfframpError, match="stands for 268435456 bytes, not 32"):
        find_codec("fp32+zstd").decode(bomb, specs, 1)
    assert not unpacked

    import lz4.block

    block = lz4.block.compress(bytes(1 << 24), store_size=False)
    with pytest.raises(OfframpError, match="payload"):
        find_codec("fp32+lz4").decode(block, specs, 1)


def test_other_tensors_than_declared_are_not_encoded() -> None:
    specs = (TensorSpec("a", "float32", (None, 8)),)
    codec = find_codec("uint8")
    for wrong in (
        {"b": np.ones((1, 8), np.float32)},
        {"a": np.ones((1, 9), np.float32)},
        {"a": np.ones((1, 8), np.float64)},
        {"a": np.ones((0, 8), np.float32)},
        {},
    ):
        with pytest.raises(OfframpError):
            codec.encode(wrong, specs)


def test_an_input_does_not_depend_on_its_neighbours_scale() -> None:
    specs = (TensorSpec("a", "float32", (None, 8)),)
    rng = np.random.default_rng(5)
    own = rng.standard_normal((1, 8)).astype(np.float32)
    loud = 1e6 * rng.standard_normal((3, 8)).astype(np.float32)
    codec = find_codec("uint8")
    alone = codec.decode(codec.encode({"a": own}, specs), specs, 1)["a"]
    together = {"a": np.concatenate((own, loud))}
    assert (codec.decode(codec.encode(together, specs), specs, 4)["a"][:1] == alone).all()


def test_channels_of_unlike_range_are_kept_apart() -> None:
    spec = TensorSpec("a", "float32", (None, 2, 8, 8))
    rng = np.random.default_rng(6)
    values = rng.standard_normal((4, 2, 8, 8)).astype(np.float32) * np.array(
        [[[[1000.0]], [[1.0]]]], np.float32
    )
    errors = {}
    for name in ("uint8", "uint8-channel"):
        codec = find_codec(name)
        arrived = codec.decode(codec.encode({"a": values}, (spec,)), (spec,), 4)["a"]
        errors[name] = float(np.abs(arrived - values)[:, 1].max())
    assert errors["uint8-channel"] < errors["uint8"] / 100


def test_only_codecs_that_change_something_are_offered_at_a_cut() -> None:
    def offered(*specs: TensorSpec) -> set[str]:
        return {codec.name for codec in codecs_for(specs, CODECS)}

    pixels = TensorSpec("image", "uint8", (None, 32, 32, 3))
    assert offered(pixels) == {"fp32+lz4", "fp32+zstd"}
    vector = TensorSpec("fc", "float32", (None, 64))
    assert offered(vector) == {name for name in CODECS if "channel" not in name}
    assert offered(TensorSpec("map", "float32", (None, 8, 4, 4))) == set(CODECS)
    assert "fp16" not in offered(TensorSpec("half", "float16", (None, 64)))
    assert "uint8" in offered(pixels, vector)


def test_names_are_checked_and_listed_once() -> None:
    assert named_codecs(None, CODECS) == named_codecs("", CODECS) == named_codecs("fp32", CODECS) == ()
    assert named_codecs(" uint8+zstd , fp16,fp16", ()) == ("fp16", "uint8+zstd")
    assert named_codecs("all", {"uint8"}) == ("uint8",)
    assert chosen_codecs("all") == tuple(CODECS)
    with pytest.raises(OfframpError, match=r"codec = 'jpeg': one of .*uint8\+zstd"):
        named_codecs("fp16,jpeg", CODECS)


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] in ("lz4", "zstandard"):
            raise ImportError(name)
        return real(name, *rest)

    module._package.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    try:
        assert module.installed_codecs() == ("fp16", "uint8", "uint8-channel")
        with pytest.raises(MissingExtraError, match=r"zstandard.*offramp\[compress\]"):
            chosen_codecs("uint8+zstd")
        uncompressed: Codec = find_codec("uint8")
        specs = (TensorSpec("a", "float32", (None, 8)),)
        assert uncompressed.encode({"a": np.ones((1, 8), np.float32)}, specs)
    finally:
        monkeypatch.undo()
        module._package.cache_clear()
