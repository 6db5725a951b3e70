"""Weights that several sessions use in place: for sessions of overlapping parts of one model."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

from offramp.model.extract import declaration
from offramp.model.sessions import make_session, session_options
from offramp.model.tensors import Array

_LOG = logging.getLogger(__name__)
SMALLEST_BYTES = 4096
"""Weights below this size are copied into each session."""
_ALIGNED_BYTES = 64
_IN_PLACE = frozenset({"Conv", "FusedConv"})
"""Operators that compute on their weights as they are. Others, `Gemm` and `MatMul` first of all, pack them into memory
of their session, whose models hold what they were packed from as well, shared or not."""

_Key = tuple[int, tuple[int, ...], bytes]


class Pooled(NamedTuple):
    """A session, and the bytes of weights that it holds of its own: what is not in the pool, and what it packs."""

    session: Any
    own_bytes: int


class WeightPool:
    """Weights by their content, as ONNX Runtime has them after its optimisations; what is equal is there once.

    The runtime rewrites weights for the processor when it optimises a model, in copies for every session. Here a model
    is optimised first, and its session is made from the result, on weights of the pool, which must live as long.
    """

    def __init__(self) -> None:
        self._values: dict[_Key, Any] = {}

    def session(self, model: onnx.ModelProto, name: str, threads: int, *, adopt: bool) -> Pooled:
        """A session for `model` on the pool's weights; what is not there is taken in with `adopt`, or copied.

        Where the runtime's optimisations cannot be had as a file, the session has all its weights to itself. Raises
        OfframpError, naming `name`, for a model that the runtime does not accept.
        """
        try:
            optimised = _optimised(model, name)
        except Exception as error:  # noqa: BLE001 - disks fail in many ways, and the session can do without
            session = make_session(model, name, threads=threads)
            _LOG.warning("%s shares no weights with other sessions: %s", name, error)
            return Pooled(session, sum(weight.ByteSize() for weight in model.graph.initializer))
        given, own_bytes = {}, 0
        in_place = _in_place(optimised)
        for weight in optimised.graph.initializer:
            values = numpy_helper.to_array(weight)
            # Only what numpy itself knows: no bfloat16, for instance.
            can_be = values.nbytes >= SMALLEST_BYTES and values.dtype.kind in "fiub"
            value = self._value(weight, values, adopt=adopt) if can_be else None
            if value is None or weight.name not in in_place:
                own_bytes += values.nbytes
            if value is not None:
                given[weight.name] = value
                weight.CopyFrom(declaration(weight))
        session = make_session(optimised, name, threads=threads, optimise=False, shared=given)
        return Pooled(session, own_bytes)

    def _value(self, weight: onnx.TensorProto, values: Array, *, adopt: bool) -> Any | None:
        content = hashlib.blake2b(np.ascontiguousarray(values).data, digest_size=20).digest()
        key = weight.data_type, values.shape, content
        if adopt and key not in self._values:
            self._values[key] = ort.OrtValue.ortvalue_from_numpy(_aligned(values))
        return self._values.get(key)


def _optimised(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The model as the runtime would run it on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        options = session_options(1, arena=False)
        options.optimized_model_filepath = str(path)
        make_session(model, name, options=options)
        return onnx.load(path)


def packed_bytes(model: onnx.ModelProto) -> int:
    """Bytes of weights that a session for `model` takes at least beside a pool that has them all."""
    in_place = _in_place(model)
    return sum(weight.ByteSize() for weight in model.graph.initializer if weight.name not in in_place)


def _in_place(model: onnx.ModelProto) -> set[str]:
    """Weights that are read by nothing but operators that use them as they are."""
    nodes = model.graph.node
    others = {name for node in nodes if node.op_type not in _IN_PLACE for name in node.input}
    return {name for node in nodes for name in node.input} - others


def _aligned(values: Array) -> Array:
    """A copy at an address at which the processor reads it fastest."""
    room = np.empty(values.nbytes + _ALIGNED_BYTES, np.uint8)
    begin = -room.ctypes.data % _ALIGNED_BYTES
    copy = room[begin : begin + values.nbytes].view(values.dtype).reshape(values.shape)
    copy[...] = values
    return copy
