"""What decides a training run. Needs no torch, so that the command line can show it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from offramp.errors import OfframpError

ALEXNET, WIDE = "alexnet", "wide"
EXIT_WEIGHTS = {ALEXNET: (0.3, 0.3, 0.5, 1.0), WIDE: (1.0,)}
"""What each exit adds to the loss unless it is said, by network: one number an exit."""
AUTO = "auto"
FROZEN, FREE = "frozen", "free"


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """Everything that decides a run's weights, besides the images and the machine's arithmetic.

    Attributes:
        epochs: passes over the training images. May still be changed while the rates are constant.
        seed: of the first weights, the order of the images and their augmentation.
        batch: images in a step.
        filter_lr: peak relative step of filters and hidden weights (Muon).
        momentum: of the filters' gradient.
        other_lr: peak rate of everything else (AdamW).
        warmup: epochs over which the rates rise from 0.
        cooldown: epochs at the end over which they fall to 0; between the two they are constant. A run
            that is shorter than both together has both shortened alike.
        shift, cutout: pixels, see `augment.training_batches`.
        smoothing: label smoothing of the cross-entropy.
        exit_weights: what each exit adds to the loss.
        distillation: share of an exit's loss that comes from its teacher's answer: the last exit's, for the
            others; the teacher network's, for all of them, where there is one.
        temperature: softens both answers in that share.
        network: "alexnet", the one that ships, or "wide", which only teaches.
        teacher: what tells the teacher network's weights apart (see `teacher.fingerprint`); empty without one.
        views: shifted views of each image that the teacher answers; epochs take them in turn.
        mix: share of the images of a step that have a box from another, see `mixing.cut_mix`.
        start: what tells the weights apart that the run begins with; empty for fresh ones.
    """

    epochs: int = 28
    seed: int = 0
    batch: int = 500
    filter_lr: float = 0.035
    momentum: float = 0.85
    other_lr: float = 0.004
    warmup: float = 2.8
    cooldown: float = 25.2
    shift: int = 4
    cutout: int = 6
    smoothing: float = 0.1
    exit_weights: tuple[float, ...] = EXIT_WEIGHTS[ALEXNET]
    distillation: float = 0.5
    temperature: float = 2.0
    network: str = ALEXNET
    teacher: str = ""
    views: int = 12
    mix: float = 0.0
    start: str = ""

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise OfframpError("epochs", self.epochs, "must be 1 or more")
        if self.batch < 2:
            raise OfframpError("batch", self.batch, "must be 2 or more")
        if self.seed < 0:
            raise OfframpError("seed", self.seed, "must be 0 or more")
        for name in ("cooldown", "warmup", "shift", "cutout", "filter_lr", "other_lr"):
            if getattr(self, name) < 0:
                raise OfframpError(name, getattr(self, name), "must be 0 or more")
        if self.network not in EXIT_WEIGHTS:
            raise OfframpError("network", self.network, f"must be one of {', '.join(EXIT_WEIGHTS)}")
        exits = len(EXIT_WEIGHTS[self.network])
        if len(self.exit_weights) != exits or min(self.exit_weights) < 0:
            raise OfframpError("exit_weights", self.exit_weights, f"must be {exits} numbers of 0 or more")
        if self.views < 2 or self.views % 2:
            raise OfframpError("views", self.views, "must be an even number of 2 or more")
        for name in ("momentum", "smoothing", "distillation"):
            if not 0 <= getattr(self, name) < 1:
                raise OfframpError(name, getattr(self, name), "must be at least 0 and below 1")
        if not 0 <= self.mix <= 1:
            raise OfframpError("mix", self.mix, "must be from 0 to 1")
        if self.temperature <= 0:
            raise OfframpError("temperature", self.temperature, "must be above 0")

    @property
    def phases(self) -> tuple[float, float]:
        """Epochs over which the rates rise, and over which they fall."""
        share = min(1.0, self.epochs / max(self.warmup + self.cooldown, 1e-9))
        return self.warmup * share, self.cooldown * share

    @property
    def constant_until(self) -> int:
        """Whole epochs before the rates begin to fall: only what comes later depends on the number of epochs."""
        return int(self.epochs - self.cooldown) if self.epochs >= self.warmup + self.cooldown else 0

    def as_json(self) -> dict[str, Any]:
        """The settings by name, as JSON has them."""
        return {**asdict(self), "exit_weights": list(self.exit_weights)}

    def as_options(self) -> str:
        """The options of `offramp train-model` that give these settings; TEACHER and START stand for
        the networks that teach it and that it begins with."""
        default = TrainingSettings()
        words = [f"--epochs {self.epochs} --seed {self.seed}"]
        for name, value in asdict(self).items():
            if name in ("epochs", "seed") or value == getattr(default, name):
                continue
            option = name.replace("_", "-")
            if name in ("teacher", "start"):
                words.append(f"--{name} {name.upper()}")
            elif isinstance(value, tuple):
                words.append(f"--{option} " + ",".join(f"{part:g}" for part in value))
            else:
                words.append(f"--{option} {value}")
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class ExitTraining:
    """How attached exits are trained.

    Attributes:
        epochs: passes over the training inputs.
        seed: of the order of the inputs and their augmentation.
        batch: inputs in a step.
        trunk: "frozen" keeps the module's parameters and running statistics to the bit and teaches the
            heads only; "free" trains everything.
        head_lr, trunk_lr: peak rates (AdamW); they rise over the first tenth and fall to 0.
        early_weight: what an early exit adds to the loss where the trunk learns; the last adds 1.
        smoothing, distillation, temperature: see `joint_loss`.
        shift, cutout: of images only, see `training_batches`; images are mirrored in every second epoch.
    """

    epochs: int = 3
    seed: int = 0
    batch: int = 128
    trunk: str = FROZEN
    head_lr: float = 0.003
    trunk_lr: float = 0.0003
    early_weight: float = 0.3
    smoothing: float = 0.0
    distillation: float = 0.5
    temperature: float = 2.0
    shift: int = 2
    cutout: int = 0

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch", 2), ("seed", 0), ("shift", 0), ("cutout", 0)):
            if getattr(self, name) < least:
                raise OfframpError(name, getattr(self, name), f"must be {least} or more")
        if self.trunk not in (FROZEN, FREE):
            raise OfframpError("trunk", self.trunk, "must be frozen or free")
        if not 0 <= self.distillation <= 1:
            raise OfframpError("distillation", self.distillation, "must be from 0 to 1")
        if self.temperature <= 0:
            raise OfframpError("temperature", self.temperature, "must be above 0")

    def as_json(self) -> dict[str, Any]:
        """The settings by name, as JSON has them."""
        return asdict(self)
