"""Which of a torch module's tensors lie on the way from its input to its answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten

from offramp.training.hooks import Hook, hooked, run, spots


@dataclass(frozen=True, slots=True)
class Way:
    """Whether a tensor is on the way, whether alone, and the first place where it was seen."""

    on: bool
    alone: bool
    made_by: str


@dataclass(slots=True)
class _Sources:
    """Tensors that stand for the input in the graph of gradients."""

    leaves: list[Tensor] = field(default_factory=list)

    def start(self, value: Tensor) -> Tensor:
        """The value, now the beginning of a graph, and one that may be written into."""
        leaf = value.detach().requires_grad_()
        self.leaves.append(leaf)
        return leaf.clone()


class _FirstFloats(TorchFunctionMode):
    """Where the input is of integers, the first floats made from it stand for it: they can have gradients."""

    def __init__(self, sources: _Sources, entry: Tensor) -> None:
        super().__init__()
        self._sources = sources
        # Kept alive, so that no other tensor takes the identity of one that is followed.
        self._followed = {id(entry): entry}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and not result.requires_grad:
            parts, _ = tree_flatten((args, kwargs))
            if any(id(part) in self._followed for part in parts):
                if result.is_floating_point():
                    return self._sources.start(result)
                self._followed[id(result)] = result
        return result


def follow(module: nn.Module, example: Tensor) -> dict[str, Way]:
    """How what each submodule reads and its output lie between input and answer.

    Read from the graph that torch keeps for gradients.
    """
    sources, nodes = _Sources(), {}

    def note(name: str) -> Hook:
        def hook(value: Any) -> None:
            if isinstance(value, Tensor):
                nodes[name] = value.grad_fn

        return hook

    with (
        torch.enable_grad(),
        hooked(module, {name: note(name) for name in spots(module)}),
    ):
        if example.is_floating_point():
            answer = run(module, sources.start(example))
        else:
            with _FirstFloats(sources, example):
                answer = run(module, example)
        ends = {id(leaf) for leaf in sources.leaves}
        before = _ancestors(answer.grad_fn, None)
        ways: dict[str, Way] = {}
        makers: dict[Any, str] = {}
        for name, node in nodes.items():
            on = node is not None and node in before
            around = _ancestors(answer.grad_fn, node) if on else set()
            alone = on and not any(id(getattr(other, "variable", None)) in ends for other in around)
            ways[name] = Way(on, alone, makers.setdefault(node, name) if on else name)
    return ways


def _ancestors(start: Any, barrier: Any) -> set[Any]:
    """Every node that `start` comes from, itself included, without going through `barrier`."""
    found: set[Any] = set()
    left = [start]
    while left:
        node = left.pop()
        if node is None or node is barrier or node in found:
            continue
        found.add(node)
        left.extend(parent for parent, _ in node.next_functions)
    return found
