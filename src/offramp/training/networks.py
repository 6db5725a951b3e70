"""The networks that `offramp train-model` trains, by name."""

from __future__ import annotations

from torch import nn

from offramp.training.alexnet import BranchyAlexNet
from offramp.training.settings import ALEXNET, WIDE
from offramp.training.wide import WideNetwork

NETWORKS: dict[str, type[BranchyAlexNet] | type[WideNetwork]] = {ALEXNET: BranchyAlexNet, WIDE: WideNetwork}


def make_network(name: str, classes: int) -> nn.Module:
    """A network with fresh weights from torch's generator; its answer is a tuple of logits, one an exit."""
    return NETWORKS[name](classes)
