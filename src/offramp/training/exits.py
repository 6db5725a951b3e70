"""Exits for any torch module: places, heads, and the module that gives all answers at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from offramp.errors import OfframpError
from offramp.training.heads import can_read, make_head
from offramp.training.hooks import Hook, hooked, plain_attention
from offramp.training.places import Place, Trace, macs_of, spread, trace
from offramp.training.settings import AUTO


class BranchedNetwork(nn.Module):
    """A trunk that is run as it is, with heads that read outputs of its submodules on the way.

    Attributes:
        trunk: the module that was given; its own answer is the last exit.
        places: names of the trunk's submodules, in the order of the exits.
        heads: one for each place.
        macs: multiply-accumulates of each exit for one input, the last included.
        classes: how many each exit tells apart.
    """

    def __init__(
        self,
        trunk: nn.Module,
        places: Sequence[str],
        heads: Sequence[nn.Module],
        macs: Sequence[int],
        classes: int,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.places = tuple(places)
        self.heads = nn.ModuleList(heads)
        self.macs = tuple(macs)
        self.classes = classes

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Logits [n, classes] of every exit, the trunk's own last."""
        answers: dict[str, Tensor] = {}

        def leave(name: str, head: nn.Module) -> Hook:
            def hook(value: Tensor) -> None:
                # What comes next in the trunk may write into its input.
                answers[name] = head(value.clone())

            return hook

        hooks = {name: leave(name, head) for name, head in zip(self.places, self.heads, strict=True)}
        with hooked(self.trunk, hooks), plain_attention():
            last = self.trunk(inputs)
        if not isinstance(last, Tensor):
            raise OfframpError(
                "module", type(self.trunk).__name__, f"gives {type(last).__name__} in training", "freeze it"
            )
        skipped = next((name for name in self.places if name not in answers), None)
        if skipped is not None:
            raise OfframpError(
                "at", skipped, "was not run in this pass", "choose another place, or freeze the trunk"
            )
        return (*(answers[name] for name in self.places), last)


def attach_exits(
    module: nn.Module,
    example: Tensor,
    at: Sequence[str] = AUTO,
    *,
    exits: int = 4,
    seed: int = 0,
) -> BranchedNetwork:
    """Give a classifier early exits. It is neither copied nor changed; heads are new and untrained.

    Args:
        module: takes one tensor [n, ...] and gives logits [n, classes].
        example: one or more inputs of the shape and type that the module takes.
        at: names of submodules whose outputs get an exit, "before:NAME" for what one reads, or "auto" for
            places that split the work evenly.
        exits: how many exits "auto" makes, the module's own last one included; at least 2.
        seed: of the heads' first weights.

    Returns:
        The network, its exits in order of their work.

    Raises:
        OfframpError: the module does not run on `example` or does not give one tensor [n, classes]; a
            name is unknown, not on the way from input to answer, run more than once or without one
            tensor for its output; an exit would take as much work as the last; too few places.
    """
    if example.ndim < 2 or not len(example):
        raise OfframpError("example", list(example.shape), "must be a batch of inputs [n, ...]")
    found = trace(module, example)
    if at == AUTO:
        if exits < 2:
            raise OfframpError("exits", exits, "must be 2 or more")
        names: Sequence[str] = spread(found, exits - 1, lambda place: _affordable(place, found))
    elif isinstance(at, str):
        raise OfframpError("at", at, f"must be a list of submodules or {AUTO!r}")
    else:
        names = at
    if not names or len(set(names)) != len(names):
        raise OfframpError("at", list(names), "must name submodules, each once")
    network = _branched(module, example, found, names, seed)
    for place, cost in zip(network.places, network.macs[:-1], strict=True):
        if cost >= network.macs[-1]:
            raise OfframpError(
                "at",
                place,
                f"an exit there takes {cost:,} multiply-accumulates, the last exit {network.macs[-1]:,}",
                "choose an earlier place",
            )
    return network


def _branched(
    module: nn.Module, example: Tensor, found: Trace, names: Sequence[str], seed: int
) -> BranchedNetwork:
    """The network with its exits in order of work."""
    device = example.device
    branches = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for place in sorted((found.named(name) for name in names), key=lambda place: place.macs):
            head = make_head(place, found.macs, found.classes).to(device)
            branches.append((place.macs + _head_macs(head, place, device), place.name, head))
    branches.sort(key=lambda branch: branch[0])
    costs, places, heads = zip(*branches, strict=True)
    return BranchedNetwork(module, places, heads, (*costs, found.macs), found.classes)


def _affordable(place: Place, found: Trace) -> bool:
    """Whether there is a head for the place, and an exit there takes less work than the last."""
    assert place.shape is not None
    if not can_read(place.shape):
        return False
    with torch.random.fork_rng(devices=[]):
        head = make_head(place, found.macs, found.classes)
    return place.macs + _head_macs(head, place, torch.device("cpu")) < found.macs


def _head_macs(head: nn.Module, place: Place, device: torch.device) -> int:
    assert place.shape is not None
    return macs_of(head.eval(), torch.zeros((1, *place.shape), device=device))
