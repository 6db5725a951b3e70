"""What each tensor of a graph depends on: nothing, the number of inputs, or the inputs themselves."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

import onnx

STANDARD_DOMAINS = frozenset({"", "ai.onnx"})


class Kind(Enum):
    """What a tensor's value depends on."""

    CONSTANT = "constant"  # weights only
    BATCH = "batch"  # weights and the number of inputs: cheap to compute again on either side of a cut
    DATA = "data"  # the inputs themselves


def tensor_kinds(nodes: Iterable[onnx.NodeProto], inputs: Iterable[str]) -> dict[str, Kind]:
    """Kind of every input and of every node's output; what is missing is a weight."""
    kind = dict.fromkeys(inputs, Kind.DATA)
    for node in nodes:
        found = {kind.get(name, Kind.CONSTANT) for name in node.input if name}
        if node.op_type in ("Shape", "Size") and node.domain in STANDARD_DOMAINS and Kind.DATA in found:
            found = {Kind.BATCH}
        result = next((k for k in (Kind.DATA, Kind.BATCH) if k in found), Kind.CONSTANT)
        kind.update((name, result) for name in node.output if name)
    return kind
