"""Training of attached exits: heads only, beside a trunk that stays as it is, or all together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from offramp.errors import OfframpError
from offramp.model.tensors import Array
from offramp.training.augment import PixelScale, training_batches
from offramp.training.exits import BranchedNetwork
from offramp.training.loss import joint_loss, rate_share
from offramp.training.settings import FREE, ExitTraining
from offramp.training.state_file import load_state, optimiser_tensors, restore_optimiser, save_state
from offramp.training.trainer import autocast

_FORMAT = "offramp.exits/1"
_RISING = 0.1
_WEIGHT_DECAY = 1e-2
Progress = Callable[[str, float, bool], None]


def train_exits(
    network: BranchedNetwork,
    inputs: Array,
    labels: npt.NDArray[np.int64],
    settings: ExitTraining,
    *,
    scale: PixelScale | None = None,
    keep: Path | None = None,
    progress: Progress = lambda message, share, finished: None,
) -> tuple[float, ...]:
    """Train the exits of a network in place; gives the mean loss of each epoch.

    Half of an early exit's loss (`distillation`) is the distance to the last exit's answer. A run is a
    function of the network, the inputs, the settings and the machine's arithmetic. Broken off, the network
    has what it has learned so far, and the same call with the same `keep` ends as if nothing had happened.

    Args:
        network: on the device where it is to be trained.
        inputs: [n, ...] as the network reads them; with `scale`, uint8 images [n, h, w, 3].
        labels: [n].
        scale: of the pixels that the network was made for.
        keep: file that is to hold the run after each epoch, and from which it goes on if it is there; the
            caller removes it.
        progress: called with a line of text, the share done (0 to 1) and whether an epoch is finished.

    Raises:
        OfframpError: no labels for some inputs, fewer than two inputs, images of another type, or `keep` is
            of another run or cannot be written.
    """
    if len(inputs) != len(labels) or len(inputs) < 2:
        raise OfframpError("inputs", len(inputs), f"must be 2 or more, with as many labels ({len(labels)})")
    if scale is not None and (inputs.dtype != np.uint8 or inputs.ndim != 4):
        shown = f"{inputs.dtype} {list(inputs.shape)}"
        raise OfframpError("inputs", shown, "must be uint8 images [n, h, w, 3] where a scale is given")
    device = next(network.heads.parameters()).device
    data, answers = torch.from_numpy(inputs).to(device), torch.from_numpy(labels).to(device)
    last = 1.0 if settings.trunk == FREE else 0.0
    weights = (*([settings.early_weight if last else 1.0] * len(network.places)), last)
    steps = max(1, len(inputs) // settings.batch) * settings.epochs
    with _learning(network, settings.trunk == FREE) as optimiser:
        means = _kept(keep, network, optimiser, settings)
        done = steps // settings.epochs * len(means)
        peaks = [settings.head_lr, settings.trunk_lr]
        for epoch in range(len(means), settings.epochs):
            losses = []
            for x, y in _batches(data, answers, settings, epoch, scale):
                rate = rate_share(done, steps, _RISING * steps, (1 - _RISING) * steps)
                for group, peak in zip(optimiser.param_groups, peaks, strict=False):
                    group["lr"] = peak * rate
                with autocast(device):
                    outputs = [logits.float() for logits in network(x)]
                loss = joint_loss(
                    outputs,
                    y,
                    weights,
                    smoothing=settings.smoothing,
                    distillation=settings.distillation,
                    temperature=settings.temperature,
                )
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                losses.append(float(loss.detach()))
                done += 1
                progress(f"epoch {epoch + 1}/{settings.epochs}  loss {losses[-1]:.3f}", done / steps, False)
            means.append(sum(losses) / len(losses))
            if keep is not None:
                state = {"settings": settings.as_json(), "places": network.places, "losses": means}
                save_state(keep, _FORMAT, state, network.state_dict(), (optimiser_tensors(optimiser),))
            progress(f"epoch {epoch + 1}/{settings.epochs}  loss {means[-1]:.4f}", done / steps, True)
    return tuple(means)


def _kept(
    keep: Path | None, network: BranchedNetwork, optimiser: torch.optim.Optimizer, settings: ExitTraining
) -> list[float]:
    """The losses of the epochs that a kept run has finished, with network and optimiser as it left them."""
    if keep is None or not keep.is_file():
        return []
    state, model, [carried] = load_state(keep, _FORMAT)
    wanted = {"settings": settings.as_json(), "places": list(network.places)}
    for name, value in wanted.items():
        if state.get(name) != value:
            raise OfframpError(
                name, value, f"{keep} holds a run with {state.get(name)}", "give the same again, or remove it"
            )
    try:
        network.load_state_dict(model)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise OfframpError("run", str(keep), f"is of another network ({reason})", "remove it") from None
    restore_optimiser(optimiser, carried)
    return [float(loss) for loss in state["losses"]]


def _batches(
    inputs: Tensor, labels: Tensor, settings: ExitTraining, epoch: int, scale: PixelScale | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Every input once in a random order; an incomplete last batch is left out unless it is the only one."""
    if scale is not None:
        yield from training_batches(
            inputs, labels, settings.batch, settings.shift, settings.cutout, settings.seed, epoch, scale
        )
        return
    rng = torch.Generator().manual_seed(settings.seed * 100_003 + epoch + 1)
    order = torch.randperm(len(inputs), generator=rng).to(inputs.device)
    batch = min(settings.batch, len(inputs))
    for start in range(0, len(inputs) - batch + 1, batch):
        rows = order[start : start + batch]
        yield inputs[rows], labels[rows]


@contextmanager
def _learning(network: BranchedNetwork, free: bool) -> Iterator[torch.optim.Optimizer]:
    """The optimiser of what learns, with everything else held still: a frozen trunk has no gradients, and
    its normalisation and dropout work as when it answers. Modes and flags are as before afterwards."""
    flags = [(parameter, parameter.requires_grad) for parameter in network.trunk.parameters()]
    modes: list[tuple[nn.Module, bool]] = [(part, part.training) for part in network.modules()]
    network.heads.train()
    network.trunk.train(free)
    for parameter, flag in flags:
        parameter.requires_grad_(flag and free)
    groups = [list(network.heads.parameters()), [p for p, flag in flags if flag and free]]
    # The optimiser refuses a group without parameters.
    optimiser = torch.optim.AdamW([{"params": g} for g in groups if g], weight_decay=_WEIGHT_DECAY)
    try:
        yield optimiser
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        for part, mode in modes:
            part.training = mode
