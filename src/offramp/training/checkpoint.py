"""What a training run leaves on disk: one safetensors file an epoch, never a pickle.

`checkpoint.safetensors` holds the model's and the optimisers' tensors, and in its metadata the settings,
the number of finished epochs and the log, so that one rename replaces all of it or nothing.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from offramp.errors import OfframpError
from offramp.training.settings import TrainingSettings

CHECKPOINT_NAME = "checkpoint.safetensors"
FORMAT = "offramp.training/2"


@dataclass(frozen=True, slots=True)
class EpochLog:
    """One finished epoch: mean loss, training accuracy of the last exit, test accuracy of each exit."""

    epoch: int
    loss: float
    train_accuracy: float
    test_accuracy: tuple[float, ...]
    duration_s: float

    def as_json(self) -> dict[str, Any]:
        """The entry by name, as JSON has it, rounded for reading."""
        return {
            "epoch": self.epoch,
            "loss": round(self.loss, 4),
            "train_accuracy": round(self.train_accuracy, 4),
            "test_accuracy": list(self.test_accuracy),
            "duration_s": round(self.duration_s, 1),
        }


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state after `len(log)` epochs. `optimisers` has one entry an optimiser, by parameter number."""

    settings: TrainingSettings
    log: tuple[EpochLog, ...]
    classes: int
    source: str
    model: dict[str, Tensor]
    optimisers: tuple[dict[int, dict[str, Tensor]], ...]

    @property
    def finished(self) -> bool:
        return len(self.log) >= self.settings.epochs


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the folder's checkpoint, whole or not at all."""
    from safetensors.torch import save_file

    tensors = {f"model.{name}": t.detach().cpu().contiguous() for name, t in checkpoint.model.items()}
    for number, optimiser in enumerate(checkpoint.optimisers):
        for parameter, state in optimiser.items():
            for name, tensor in state.items():
                key = f"optimiser.{number}.{parameter}.{name}"
                tensors[key] = tensor.detach().cpu().contiguous()
    state_json = json.dumps(
        {
            "settings": asdict(checkpoint.settings),
            "log": [asdict(entry) for entry in checkpoint.log],
            "classes": checkpoint.classes,
            "source": checkpoint.source,
        }
    )
    partial = folder / f"{CHECKPOINT_NAME}.part"
    try:
        save_file(tensors, partial, metadata={"format": FORMAT, "state": state_json})
        partial.replace(folder / CHECKPOINT_NAME)
    finally:
        partial.unlink(missing_ok=True)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read the checkpoint of a run folder.

    Raises:
        OfframpError: there is none, or the file is not one.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / CHECKPOINT_NAME
    if not path.is_file():
        raise OfframpError(
            "run", str(folder), f"must hold a {CHECKPOINT_NAME}", "train one with offramp train-model"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata.get("format") != FORMAT:
            raise OfframpError("run", str(path), f"must have format {FORMAT}, has {metadata.get('format')}")
        return _from_tensors(json.loads(metadata["state"]), tensors)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, OfframpError):
            raise
        raise OfframpError("run", str(path), f"is not a readable checkpoint ({error})") from None


def _from_tensors(state: dict[str, Any], tensors: dict[str, Tensor]) -> Checkpoint:
    model: dict[str, Tensor] = {}
    optimisers: dict[int, dict[int, dict[str, Tensor]]] = {}
    for key, tensor in tensors.items():
        kind, _, rest = key.partition(".")
        if kind == "model":
            model[rest] = tensor
        else:
            number, parameter, name = rest.split(".")
            optimisers.setdefault(int(number), {}).setdefault(int(parameter), {})[name] = tensor
    settings = dict(state["settings"])
    settings["exit_weights"] = tuple(settings["exit_weights"])
    log = tuple(
        EpochLog(**{**entry, "test_accuracy": tuple(entry["test_accuracy"])}) for entry in state["log"]
    )
    ordered = tuple(optimisers[number] for number in sorted(optimisers))
    return Checkpoint(
        TrainingSettings(**settings), log, int(state["classes"]), str(state["source"]), model, ordered
    )


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[int, dict[str, Tensor]]:
    """The tensors an optimiser carries from step to step, by parameter number."""
    return {
        int(number): {name: value for name, value in state.items() if isinstance(value, Tensor)}
        for number, state in optimiser.state_dict()["state"].items()
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[int, dict[str, Tensor]]) -> None:
    """Give an optimiser back what `optimiser_tensors` took from it."""
    optimiser.load_state_dict({"state": tensors, "param_groups": optimiser.state_dict()["param_groups"]})
