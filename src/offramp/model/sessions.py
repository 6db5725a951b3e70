"""ONNX Runtime sessions with the settings that a chain of small sessions needs."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import onnx
import onnxruntime as ort

from offramp.errors import OfframpError
from offramp.model.tensors import Array

# Fatal only: a refused model is reported once, by OfframpError.
_LOG_SEVERITY = 4
# The arena grows by what is asked for, not to the next power of two.
_AS_REQUESTED = 1


@cache
def _share_arena() -> bool:
    """Give the process one arena for all sessions; False if it has its own already.

    A chain then uses the same memory from block to block, which keeps it in the processor's cache, and many
    sessions take no more of it than one.
    """
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    try:
        ort.create_and_register_allocator(memory, ort.OrtArenaCfg({"arena_extend_strategy": _AS_REQUESTED}))
    except RuntimeError:
        return False
    return True


def session_options(threads: int, *, optimise: bool = True, arena: bool = True) -> Any:
    """Options for a session with `threads` threads that do not spin: many spinning pools starve each other.

    Without `arena` it leaves nothing behind in the one that all others share, which never shrinks.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _LOG_SEVERITY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    if not arena:
        options.enable_cpu_mem_arena = False
    elif _share_arena():
        options.add_session_config_entry("session.use_env_allocators", "1")
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    return options


def make_session(
    model: onnx.ModelProto,
    name: str,
    *,
    threads: int = 1,
    optimise: bool = True,
    shared: Mapping[str, Any] | None = None,
    options: Any | None = None,
) -> Any:
    """A CPU session for `model`; `shared` weights are taken from the given OrtValues, which must live as long.

    They are not copied unless an operator packs them, or an optimisation rewrites them. `options` stand for `threads`
    and `optimise`. Raises OfframpError, naming `name`, for a model that the runtime does not accept.
    """
    options = options or session_options(threads, optimise=optimise)
    if shared:
        # The first gives values to what is only declared, the second says not to copy them.
        options.add_external_initializers(list(shared), list(shared.values()))
        for given, value in shared.items():
            options.add_initializer(given, value)
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - the runtime raises many types; none is ours
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise OfframpError("model", name, f"not accepted by ONNX Runtime: {reason}") from None


def run_session(session: Any, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
    """The named outputs. Safe in several threads. Raises OfframpError if the runtime fails.

    Recent versions of the runtime copy neither inputs nor outputs, so arrays are passed as they are.
    """
    try:
        made: list[Array] = session.run(outputs, inputs)
    except Exception as error:  # noqa: BLE001 - the runtime raises many types; none is ours
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise OfframpError("model", session.get_modelmeta().graph_name, f"failed to run: {reason}") from None
    return made


def return_memory() -> None:
    """Give memory that was needed to make sessions back to the system, where the C library can.

    Sessions are made from copies of their weights. The C library keeps what those took, which on a small
    device is more than the sessions themselves.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
