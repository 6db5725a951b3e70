"""Trained policies as files (`offramp.policy/1`): safetensors, one header, no pickle, no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from offramp.errors import OfframpError
from offramp.observation import Timing
from offramp.validation import one_line

Algorithm = Literal["ddqn", "ddqn-paper"]
Target = Literal["double", "plain"]
ALGORITHMS: tuple[Algorithm, ...] = ("ddqn", "ddqn-paper")
TARGETS: tuple[Target, ...] = ("double", "plain")
Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]

_HEADER_KEY = "offramp"
_RUN_KEY = "offramp-run"
_REMEDY = "train it again with `offramp train-policy`"
_RESTART = "remove it, or train without --resume"


class Header(BaseModel):
    """What a policy file says of itself.

    Attributes:
        algorithm, target, discount: what was trained, and how: see docs/ddqn.md.
        timing: the timing model it was trained under.
        devices: the most devices that it knows.
        family: identity of the scenario family, as `ddqn-paper` checks it; None where any scenario within the
            file's own ranges will do (`ddqn`).
        training: command, seed and versions, for people.
        sha256: of the arrays' bytes in order of name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal["offramp.policy/1"] = "offramp.policy/1"
    algorithm: Algorithm
    target: Target
    discount: Annotated[float, Field(ge=0, lt=1)]
    timing: Timing
    devices: PositiveInt
    family: str | None
    training: dict[str, str | int | float]
    sha256: str


@dataclass(frozen=True, slots=True, eq=False)
class PolicyFile:
    """A file that was read and holds together: header and finite arrays by name."""

    header: Header
    arrays: Arrays
    source: str

    def expect(self, algorithm: Algorithm, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """OfframpError unless the file is of that algorithm and has just these arrays."""
        if self.header.algorithm != algorithm:
            raise OfframpError(
                f"{self.source}: algorithm",
                self.header.algorithm,
                f"must be {algorithm}",
                f"use --policy {self.header.algorithm}, or train with --algorithm {algorithm}",
            )
        found = {name: array.shape for name, array in self.arrays.items()}
        if found != dict(shapes):
            raise OfframpError(f"{self.source}: arrays", found, f"must be {dict(shapes)}", _REMEDY)


def digest(arrays: Mapping[str, np.ndarray[Any, np.dtype[Any]]]) -> str:
    """SHA-256 over names, types, shapes and bytes, in order of name."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        total.update(f"{name} {array.dtype.str} {array.shape}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def policy_bytes(arrays: Arrays, **header: Any) -> bytes:
    """The bytes of a policy file, the same for the same values. `header`: see `Header`."""
    content = Header(**header, sha256=digest(arrays)).model_dump_json()
    ordered = {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}
    # One key only: safetensors does not fix the order of several.
    return save(ordered, metadata={_HEADER_KEY: content})


def read_policy(path: Path) -> PolicyFile:
    """Read and check a policy file. OfframpError if it is missing, foreign, truncated, altered or not finite."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise OfframpError(
            "policy file", str(path), f"cannot be read ({error.strerror})", "give a file that exists"
        ) from None
    return parse_policy(data, str(path))


def parse_policy(data: bytes, source: str) -> PolicyFile:
    """`read_policy` for bytes in memory; `source` names them in an OfframpError."""
    arrays, metadata = _load(data, source, _REMEDY)
    header_text = metadata.get(_HEADER_KEY)
    if header_text is None:
        raise OfframpError("policy file", source, "has no Offramp header", _REMEDY)
    try:
        header = TypeAdapter(Header).validate_json(header_text)
    except ValidationError as error:
        raise one_line(error, source, _REMEDY) from None
    if digest(arrays) != header.sha256:
        raise OfframpError(f"{source}: sha256", header.sha256, "does not match the arrays", _REMEDY)
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise OfframpError(f"{source}: {name}", "NaN or infinity", "must be finite", _REMEDY)
    return PolicyFile(header, arrays, source)


def checkpoint_bytes(arrays: Arrays, identity: str) -> bytes:
    """A training run that is under way, as a file; `identity` says which run."""
    ordered = {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}
    return save(ordered, metadata={_RUN_KEY: identity})


def parse_checkpoint(data: bytes, identity: str, source: str) -> Arrays:
    """The arrays of a checkpoint. OfframpError if it is damaged, or of another run than `identity`."""
    arrays, metadata = _load(data, source, _RESTART)
    if metadata.get(_RUN_KEY) != identity:
        raise OfframpError(f"{source}: run", metadata.get(_RUN_KEY), f"must be {identity}", _RESTART)
    return arrays


def _load(data: bytes, source: str, remedy: str) -> tuple[Arrays, dict[str, str]]:
    try:
        arrays = load(data)
        size = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + size]).get("__metadata__", {})
    except (SafetensorError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise OfframpError(
            "policy file", source, f"is no whole safetensors file ({reason})", remedy
        ) from None
    return arrays, metadata
