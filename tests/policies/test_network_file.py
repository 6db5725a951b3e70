"""Policy files: the same bytes for the same values, and nothing damaged, foreign or altered gets in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from offramp.errors import OfframpError
from offramp.policies.network_file import (
    checkpoint_bytes,
    parse_checkpoint,
    parse_policy,
    policy_bytes,
    read_policy,
)

ARRAYS = {"first": np.arange(6, dtype=np.float32).reshape(2, 3), "scale": np.array([10.0, 0.3])}
HEADER = {
    "algorithm": "ddqn-paper",
    "target": "double",
    "discount": 0.9,
    "timing": "paper",
    "devices": 3,
    "family": "abc",
    "training": {"seed": 0},
}


def content() -> bytes:
    return policy_bytes(dict(ARRAYS), **HEADER)


def with_header(change: dict[str, object]) -> bytes:
    """The same arrays under a header of which some values are other ones."""
    data = content()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["offramp"]) | change
    return save(load(data), metadata={"offramp": json.dumps(header)})


def test_arrays_and_header_come_back() -> None:
    policy = parse_policy(content(), "here")
    assert policy.header.algorithm == "ddqn-paper"
    assert policy.header.devices == 3
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(policy.arrays[name], array)


def test_the_same_values_give_the_same_bytes() -> None:
    assert policy_bytes(dict(reversed(ARRAYS.items())), **HEADER) == content()


@given(length=st.integers(0, len(content()) - 1))
def test_a_truncated_file_is_refused(length: int) -> None:
    with pytest.raises(OfframpError):
        parse_policy(content()[:length], "cut off")


@given(place=st.integers(0, len(content()) - 1), bit=st.integers(0, 7))
def test_no_flipped_bit_goes_unseen(place: int, bit: int) -> None:
    """Either the file is refused, or what was read is what was written."""
    data = bytearray(content())
    data[place] ^= 1 << bit
    try:
        policy = parse_policy(bytes(data), "flipped")
    except OfframpError:
        return
    assert policy.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(policy.arrays[name], array)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"format": "offramp.policy/2"}, "format"),
        ({"algorithm": "sarsa"}, "algorithm"),
        ({"discount": 1.5}, "discount"),
        ({"sha256": "0" * 64}, "does not match the arrays"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_header_that_does_not_hold_is_refused(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(OfframpError, match=complaint):
        parse_policy(with_header(change), "altered")


def test_another_programs_file_and_no_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OfframpError, match="has no Offramp header"):
        parse_policy(save({"weights": np.zeros(3)}), "foreign")
    with pytest.raises(OfframpError, match="cannot be read"):
        read_policy(tmp_path / "missing")
    with pytest.raises(OfframpError, match="cannot be read"):
        read_policy(tmp_path)


def test_weights_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(OfframpError, match="must be finite"):
        parse_policy(policy_bytes({"first": np.array([1.0, np.nan])}, **HEADER), "nan")


def test_other_arrays_than_expected_are_refused() -> None:
    policy = parse_policy(content(), "here")
    policy.expect("ddqn-paper", {"first": (2, 3), "scale": (2,)})
    with pytest.raises(OfframpError, match="use --policy ddqn-paper"):
        policy.expect("ddqn", {"first": (2, 3), "scale": (2,)})
    with pytest.raises(OfframpError, match="arrays"):
        policy.expect("ddqn-paper", {"first": (3, 2), "scale": (2,)})


def test_a_checkpoint_is_of_one_run() -> None:
    data = checkpoint_bytes({"flat": np.array([np.nan])}, "run 1")
    assert np.isnan(parse_checkpoint(data, "run 1", "here")["flat"]).all()
    with pytest.raises(OfframpError, match="must be run 2"):
        parse_checkpoint(data, "run 2", "here")
    with pytest.raises(OfframpError, match="no whole safetensors file"):
        parse_checkpoint(data[:-1], "run 1", "here")
