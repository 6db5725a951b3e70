"""The networks that `offramp train-model` trains, by name."""

from __future__ import annotations

from torch import nn

from offramp.errors import OfframpError
from offramp.training.alexnet import BranchyAlexNet
from offramp.training.checkpoint import CHECKPOINT_NAME, Checkpoint
from offramp.training.settings import ALEXNET, WIDE
from offramp.training.wide import WideNetwork

NETWORKS: dict[str, type[BranchyAlexNet] | type[WideNetwork]] = {ALEXNET: BranchyAlexNet, WIDE: WideNetwork}


def make_network(name: str, classes: int) -> nn.Module:
    """A network with fresh weights from torch's generator; its answer is a tuple of logits, one an exit."""
    return NETWORKS[name](classes)


def load_model(checkpoint: Checkpoint) -> nn.Module:
    """The network of a checkpoint, on the CPU, ready to answer.

    Raises:
        OfframpError: the checkpoint's tensors are of another network.
    """
    model = make_network(checkpoint.settings.network, checkpoint.classes)
    restore_model(model, checkpoint)
    return model.eval()


def restore_model(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Give a network the tensors of a checkpoint. Raises OfframpError if they are of another network."""
    try:
        model.load_state_dict(checkpoint.model)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise OfframpError("run", CHECKPOINT_NAME, f"is of another network ({reason})") from None
