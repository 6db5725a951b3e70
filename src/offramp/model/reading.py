"""Read an ONNX file safely: nothing outside its folder, nothing truncated, nothing that cannot be cut."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import onnx
import onnx.inliner
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_model, uses_external_data

from offramp.errors import OfframpError
from offramp.model.batch import free_batch

# Initializers up to this many bytes may be shapes, axes or scales, which shape inference needs to see.
SMALL_INITIALIZER_BYTES = 2048
# Marks a graph input that stands for a weight in the copy without weights.
WEIGHT_MARK = "offramp: weight"
_TENSOR_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
_RANDOM_OPERATORS = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}
)


@dataclass(frozen=True, slots=True)
class ModelSource:
    """An ONNX file that passed every check, by path and hash; weights are read again when they are needed.

    `freed` tells that the file fixes the batch at 1 and that the loaded model has a free batch axis instead.
    """

    path: Path
    sha256: str
    freed: bool

    def load(self) -> onnx.ModelProto:
        """The whole model with its weights. Raises OfframpError if the file changed since it was checked."""
        data = _read_bytes(self.path)
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise OfframpError("model", str(self.path), "the file changed while in use", "load it again")
        proto = _parse(data, self.path)
        load_external_data_for_model(proto, str(self.path.parent))
        proto = _inline_functions(proto, self.path)
        if self.freed:
            free_batch(proto)
        return proto

    def load_fixed(self) -> onnx.ModelProto:
        """The whole model as it is in the file, without freeing the batch axis."""
        return replace(self, freed=False).load()


def open_model(path: Path) -> tuple[ModelSource, onnx.ModelProto]:
    """Check the ONNX file at `path` and return its source and a copy of it without large weights.

    The copy keeps every node and the small initializers; a large one becomes a typed graph input, so shape
    inference still works and the weights are not held twice. Raises OfframpError if the file is missing,
    is not ONNX, is truncated, uses data outside its folder or behind a link, or uses control flow,
    sequences, sparse or random tensors.
    """
    data = _read_bytes(path)
    proto = _parse(data, path)
    _check_constructs(proto)
    for tensor in _tensors(proto):
        _check_tensor(tensor, path)
    proto = _inline_functions(proto, path)
    _check_constructs(proto)
    source = ModelSource(path.resolve(), hashlib.sha256(data).hexdigest(), freed=free_batch(proto))
    skeleton = _without_weights(proto)
    try:
        onnx.checker.check_model(skeleton)
    except onnx.checker.ValidationError as error:
        # Operators of another domain have no schema here; the runtime judges them when a session is made.
        if "No Op registered" not in str(error) and "No opset import" not in str(error):
            raise OfframpError("model", str(path), f"not a valid ONNX graph: {_first_line(error)}") from None
    return source, skeleton


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise OfframpError(
            "model", str(path), f"cannot be read ({error.strerror})", "give an ONNX file"
        ) from None


def _parse(data: bytes, path: Path) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError:
        raise OfframpError("model", str(path), "not an ONNX file, or cut short", "export it again") from None
    # Almost any bytes parse as some protobuf message; a model also has nodes, outputs and an operator set.
    if not proto.graph.node or not proto.graph.output or not proto.opset_import:
        raise OfframpError(
            "model", str(path), "not an ONNX file: no graph with outputs in it", "export it again"
        )
    return proto


def _inline_functions(proto: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    if not proto.functions:
        return proto
    try:
        inlined: onnx.ModelProto = onnx.inliner.inline_local_functions(proto)
        return inlined
    except (RuntimeError, ValueError) as error:
        raise OfframpError("model", str(path), f"functions cannot be inlined: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _check_constructs(proto: onnx.ModelProto) -> None:
    graph = proto.graph
    if graph.sparse_initializer:
        name = graph.sparse_initializer[0].values.name
        raise OfframpError("initializer", name, "sparse tensors are not supported", "store it dense")
    for value in (*graph.input, *graph.output):
        if not value.type.HasField("tensor_type") and value.type.WhichOneof("value") is not None:
            kind = value.type.WhichOneof("value")
            raise OfframpError("tensor", value.name, f"{kind} is not supported", "use plain tensors")
    for node in graph.node:
        _check_node(node)


def _check_node(node: onnx.NodeProto) -> None:
    name = node.name or (node.output[0] if node.output else node.op_type)
    if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
        raise OfframpError(
            f"operator {node.op_type}", name, "control flow cannot be cut", "export the model without it"
        )
    if "Sequence" in node.op_type or node.op_type.startswith("Optional"):
        raise OfframpError(
            f"operator {node.op_type}",
            name,
            "sequence and optional types are not supported",
            "use plain tensors",
        )
    if node.op_type in _RANDOM_OPERATORS and node.domain in _TENSOR_DOMAINS:
        raise OfframpError(
            f"operator {node.op_type}", name, "random operators are not supported", "export for inference"
        )


def _tensors(proto: onnx.ModelProto) -> Iterator[TensorProto]:
    yield from proto.graph.initializer
    nodes = [*proto.graph.node, *(node for function in proto.functions for node in function.node)]
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def tensor_bytes(tensor: TensorProto) -> int | None:
    """Bytes that the tensor's elements take, or None for strings and types narrower than a byte."""
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except (KeyError, TypeError):
        return None
    packed = tensor.data_type in (TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1)
    if tensor.data_type == TensorProto.STRING or packed:
        return None
    return int(math.prod(tensor.dims) * dtype.itemsize)


def _check_tensor(tensor: TensorProto, model: Path) -> None:
    expected = tensor_bytes(tensor)
    if uses_external_data(tensor):
        _check_external(tensor, model, expected)
    elif expected is not None and tensor.HasField("raw_data") and len(tensor.raw_data) != expected:
        raise OfframpError(
            f"weights of {tensor.name}",
            len(tensor.raw_data),
            f"must be {expected} bytes, the file is truncated or damaged",
            "export the model again",
        )
    elif expected and not tensor.HasField("raw_data"):
        field = onnx.helper.tensor_dtype_to_field(tensor.data_type)
        count, per_element = len(getattr(tensor, field)), 1
        if tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128):
            per_element = 2
        if count != math.prod(tensor.dims) * per_element:
            raise OfframpError(
                f"weights of {tensor.name}",
                count,
                f"must be {math.prod(tensor.dims) * per_element} elements",
                "export the model again",
            )


def _check_external(tensor: TensorProto, model: Path, expected: int | None) -> None:
    info = ExternalDataInfo(tensor)
    field = f"external data of {tensor.name}"
    location = PurePosixPath(info.location.replace("\\", "/"))
    if location.is_absolute() or ".." in location.parts or not location.parts or ":" in location.parts[0]:
        raise OfframpError(
            field, info.location, "must stay in the model's folder", "keep the data beside the model"
        )
    path = model.parent
    for part in location.parts:
        path = path / part
        if path.is_symlink():
            raise OfframpError(field, info.location, "must not be a link", "copy the data beside the model")
    if not path.is_file():
        raise OfframpError(field, info.location, "no such file", "keep the data beside the model")
    offset, length = info.offset or 0, info.length
    length = expected if length is None else length
    if offset < 0 or (length is not None and (length < 0 or offset + length > path.stat().st_size)):
        raise OfframpError(field, info.location, "ends before the weights do", "export the model again")
    if expected is not None and length != expected:
        raise OfframpError(field, length, f"must be {expected} bytes", "export the model again")


def _without_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    skeleton = onnx.ModelProto()
    skeleton.ir_version = max(proto.ir_version, 4)
    skeleton.opset_import.extend(proto.opset_import)
    graph = skeleton.graph
    graph.name = proto.graph.name or "graph"
    graph.node.extend(proto.graph.node)
    graph.output.extend(proto.graph.output)
    initializers = {tensor.name for tensor in proto.graph.initializer}
    graph.input.extend(value for value in proto.graph.input if value.name not in initializers)
    for tensor in proto.graph.initializer:
        size = tensor_bytes(tensor)
        if not uses_external_data(tensor) and size is not None and size <= SMALL_INITIALIZER_BYTES:
            graph.initializer.append(tensor)
        else:
            value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            value.doc_string = WEIGHT_MARK
            graph.input.append(value)
    return skeleton
