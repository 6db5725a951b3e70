"""One safetensors file for the state of a run: tensors, and in its metadata what JSON can say. Never a pickle."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from offramp.errors import OfframpError

OptimiserTensors = dict[int, dict[str, Tensor]]
"""The tensors an optimiser carries from step to step, by parameter number."""


def save_state(
    path: Path,
    kind: str,
    state: dict[str, Any],
    model: dict[str, Tensor],
    optimisers: tuple[OptimiserTensors, ...],
) -> None:
    """Replace the file, whole or not at all. Raises OfframpError if it cannot be written."""
    tensors = {f"model.{name}": tensor for name, tensor in model.items()}
    for number, optimiser in enumerate(optimisers):
        for parameter, carried in optimiser.items():
            for name, tensor in carried.items():
                tensors[f"optimiser.{number}.{parameter}.{name}"] = tensor
    # Copies, since the format has no way to say that two names share a tensor.
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    write_tensors(path, copies, {"format": kind, "state": json.dumps(state)})


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Replace the file, whole or not at all. Raises OfframpError if it cannot be written."""
    from safetensors.torch import save_file

    partial = path.with_name(f"{path.name}.part")
    try:
        save_file(tensors, partial, metadata=metadata)
        partial.replace(path)
    except OSError as error:
        raise OfframpError("run", str(path), f"cannot be written ({error.strerror})") from None
    finally:
        partial.unlink(missing_ok=True)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors that `write_tensors` wrote. Raises OfframpError if the file is not one."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise OfframpError(
            "run", str(path), f"is not a readable safetensors file ({error})", "delete it"
        ) from None


def load_state(
    path: Path, kind: str
) -> tuple[dict[str, Any], dict[str, Tensor], tuple[OptimiserTensors, ...]]:
    """What `save_state` wrote: state, model and optimisers. Raises OfframpError if the file is not one."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata.get("format") != kind:
            raise OfframpError("run", str(path), f"must have format {kind}, has {metadata.get('format')}")
        state = json.loads(metadata["state"])
        model, optimisers = _sort(tensors)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, OfframpError):
            raise
        raise OfframpError("run", str(path), f"is not a readable checkpoint ({error})") from None
    return state, model, optimisers


def _sort(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[OptimiserTensors, ...]]:
    model: dict[str, Tensor] = {}
    optimisers: dict[int, OptimiserTensors] = {}
    for key, tensor in tensors.items():
        kind, _, rest = key.partition(".")
        if kind == "model":
            model[rest] = tensor
        else:
            number, parameter, name = rest.split(".")
            optimisers.setdefault(int(number), {}).setdefault(int(parameter), {})[name] = tensor
    return model, tuple(optimisers[number] for number in sorted(optimisers))


def weights_fingerprint(tensors: dict[str, Tensor]) -> str:
    """Sixteen hexadecimal digits that other weights would not have."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> OptimiserTensors:
    """Everything of an optimiser that changes from step to step, but for its rates."""
    return {
        int(number): {name: value for name, value in state.items() if isinstance(value, Tensor)}
        for number, state in optimiser.state_dict()["state"].items()
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: OptimiserTensors) -> None:
    """Give an optimiser back what `optimiser_tensors` took from it."""
    optimiser.load_state_dict({"state": tensors, "param_groups": optimiser.state_dict()["param_groups"]})
