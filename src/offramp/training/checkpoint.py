"""What a training run of the bundled network leaves on disk: one file an epoch.

`checkpoint.safetensors` holds the model's and the optimisers' tensors, and in its metadata the settings,
the number of finished epochs and the log, so that one rename replaces all of it or nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from offramp.errors import OfframpError
from offramp.training.settings import TrainingSettings
from offramp.training.state_file import OptimiserTensors, load_state, save_state

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
    """The state after `len(log)` epochs. `optimisers` has one entry an optimiser, by parameter number; `teacher`
    and `start` are what a manifest says of the network that teaches and of the one that the run began with."""

    settings: TrainingSettings
    log: tuple[EpochLog, ...]
    classes: int
    source: str
    model: dict[str, Tensor]
    optimisers: tuple[OptimiserTensors, ...]
    teacher: dict[str, Any] | None = None
    start: dict[str, Any] | None = None

    def history(self) -> dict[str, Any]:
        """What a manifest says of the run: enough to do it again and to see how it went."""
        others = {"teacher": self.teacher, "start": self.start}
        return {
            "command": f"offramp train-model --data DIR -o RUN {self.settings.as_options()}",
            "seed": self.settings.seed,
            "settings": self.settings.as_json(),
            "log": [entry.as_json() for entry in self.log],
            **{name: made for name, made in others.items() if made is not None},
        }

    @property
    def finished(self) -> bool:
        return len(self.log) >= self.settings.epochs


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the folder's checkpoint, whole or not at all."""
    state = {
        "settings": asdict(checkpoint.settings),
        "log": [asdict(entry) for entry in checkpoint.log],
        "classes": checkpoint.classes,
        "source": checkpoint.source,
        "teacher": checkpoint.teacher,
        "start": checkpoint.start,
    }
    save_state(folder / CHECKPOINT_NAME, FORMAT, state, checkpoint.model, checkpoint.optimisers)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read the checkpoint of a run folder.

    Raises:
        OfframpError: there is none, or the file is not one.
    """
    path = folder / CHECKPOINT_NAME
    if not path.is_file():
        raise OfframpError(
            "run", str(folder), f"must hold a {CHECKPOINT_NAME}", "train one with offramp train-model"
        )
    state, model, optimisers = load_state(path, FORMAT)
    try:
        return Checkpoint(
            *_settings_and_log(state),
            int(state["classes"]),
            str(state["source"]),
            model,
            optimisers,
            state.get("teacher"),
            state.get("start"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise OfframpError("run", str(path), f"is not a readable checkpoint ({error})") from None


def _settings_and_log(state: dict[str, Any]) -> tuple[TrainingSettings, tuple[EpochLog, ...]]:
    weights = tuple(state["settings"]["exit_weights"])
    settings = TrainingSettings(**{**state["settings"], "exit_weights": weights})
    return settings, tuple(
        EpochLog(**{**entry, "test_accuracy": tuple(entry["test_accuracy"])}) for entry in state["log"]
    )
