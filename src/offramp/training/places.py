"""Where a torch module can have an exit: which of its submodules lie on the way, and what comes before each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import FlopCounterMode

from offramp.errors import OfframpError

Hook = Callable[[nn.Module, Any, Any], Any]


@dataclass(frozen=True, slots=True)
class Place:
    """The output of one submodule.

    Attributes:
        name: the submodule's, as `named_modules` gives it.
        calls: how often a forward pass runs it.
        shape: of its output for one input; None if the output is not one tensor [n, ...].
        macs: multiply-accumulates of everything that runs before it has its output, for one input.
        on_the_way: whether the last answer depends on the output, and the output on the input.
        alone: whether everything that the last answer takes from the input passes through this output.
        handed_on: whether the output was there before, when less work was done, and is only passed on.
    """

    name: str
    calls: int
    shape: tuple[int, ...] | None
    macs: int
    on_the_way: bool
    alone: bool
    handed_on: bool


@dataclass(frozen=True, slots=True)
class Trace:
    """A module's places in the order in which they have their outputs, and what the whole module does."""

    places: tuple[Place, ...]
    classes: int
    macs: int

    def named(self, name: str) -> Place:
        """The place of that name, fit for an exit. Raises OfframpError if there is none or it is not."""
        place = next((place for place in self.places if place.name == name), None)
        if place is None:
            known = ", ".join(p.name for p in self.places if p.alone and p.shape)
            raise OfframpError(
                "at", name, "no such submodule runs in the forward pass", f"choose among {known}"
            )
        if place.calls != 1:
            raise OfframpError("at", name, f"runs {place.calls} times in a forward pass, must run once")
        if place.shape is None:
            raise OfframpError("at", name, "its output must be one tensor whose first axis is the batch")
        if not place.on_the_way:
            raise OfframpError("at", name, "is not on the way from the input to the answer")
        return place


@contextmanager
def hooked(module: nn.Module, hooks: dict[str, Hook]) -> Iterator[None]:
    """Forward hooks on named submodules for the time of the block; the module keeps none."""
    handles = [module.get_submodule(name).register_forward_hook(hook) for name, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def plain_attention() -> Iterator[None]:
    """Keep torch's attention layers from a fused path on which their submodules are not run."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def trace(module: nn.Module, example: Tensor) -> Trace:
    """Run the module twice in evaluation mode, once for the work before each place, once for what depends on what.

    Args:
        module: takes one tensor and gives logits [n, classes]; left as it was.
        example: what it takes, [n, ...].

    Raises:
        OfframpError: the module does not run on `example`, or its answer is not one tensor [n, classes].
    """
    flags = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        with plain_attention():
            outputs, total, classes = _measure(module, example)
            ways = _follow(module, example)
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        for part, mode in modes:
            part.training = mode
    places = []
    for name, seen in sorted(outputs.items(), key=lambda item: item[1].order):
        way = ways.get(name, _Way(False, False, name))
        macs = outputs[way.made_by].macs
        places.append(Place(name, seen.calls, seen.shape, macs, way.on, way.alone, macs < seen.macs))
    return Trace(tuple(places), classes, total)


def macs_of(module: nn.Module, example: Tensor) -> int:
    """Multiply-accumulates of one input's pass through a module, by torch's own count. Mode is left as it is."""
    with _counting() as counter:
        module(example)
    return int(counter.get_total_flops()) // 2 // len(example)


@contextmanager
def _counting() -> Iterator[FlopCounterMode]:
    """Counts matrix products and convolutions. Attention is run as such, since torch counts no fused one."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        yield counter


def spread(trace: Trace, count: int) -> tuple[str, ...]:
    """`count` places that split the module's work into parts as equal as its structure allows.

    Only places through which everything passes count. Among those with the same work before them the last
    is taken: it is after activation and pooling, and the outermost of nested modules. The sum of the
    distances to equal parts is the least possible.

    Raises:
        OfframpError: there are fewer such places.
    """
    levels: dict[int, str] = {}
    for place in trace.places:
        fits = place.alone and place.calls == 1 and place.shape and not place.handed_on
        if fits and 0 < place.macs < trace.macs:
            levels[place.macs] = place.name
    costs = sorted(levels)
    if count > len(costs):
        raise OfframpError(
            "exits", count + 1, f"the module has places for {len(costs) + 1}", "ask for fewer, or name places"
        )
    targets = [trace.macs * (number + 1) / (count + 1) for number in range(count)]
    return tuple(levels[cost] for cost in _nearest(costs, targets))


def _nearest(costs: Sequence[int], targets: Sequence[float]) -> list[int]:
    """An increasing choice of `costs`, one for each target, with the least sum of distances."""
    # best[k] = (distance, choice) of the first k targets among the costs seen so far.
    best: list[tuple[float, list[int]] | None] = [(0.0, [])] + [None] * len(targets)
    for cost in costs:
        for number in range(len(targets), 0, -1):
            before = best[number - 1]
            if before is None:
                continue
            distance = before[0] + abs(cost - targets[number - 1])
            now = best[number]
            if now is None or distance < now[0]:
                best[number] = (distance, [*before[1], cost])
    last = best[-1]
    assert last is not None
    return last[1]


@dataclass(slots=True)
class _Seen:
    order: int = 0
    calls: int = 0
    shape: tuple[int, ...] | None = None
    macs: int = 0


def _measure(module: nn.Module, example: Tensor) -> tuple[dict[str, _Seen], int, int]:
    """What each submodule gave and the work until then; the whole's work; the number of classes."""
    seen: dict[str, _Seen] = {}
    size = len(example)
    with _counting() as counter:

        def note(name: str) -> Hook:
            def hook(part: nn.Module, args: Any, output: Any) -> None:
                entry = seen.setdefault(name, _Seen())
                entry.calls += 1
                entry.order = sum(other.calls for other in seen.values())
                entry.macs = int(counter.get_total_flops()) // 2 // size
                fits = isinstance(output, Tensor) and output.ndim >= 2 and len(output) == size
                entry.shape = tuple(output.shape[1:]) if fits and output.is_floating_point() else None

            return hook

        with hooked(module, {name: note(name) for name, _ in module.named_modules() if name}):
            answer = _run(module, example)
    return seen, int(counter.get_total_flops()) // 2 // size, int(answer.shape[1])


def _run(module: nn.Module, example: Tensor) -> Tensor:
    try:
        answer = module(example)
    except (RuntimeError, TypeError, ValueError, NotImplementedError, IndexError, AttributeError) as error:
        reason = " ".join(str(error).split())[:160]
        shown = f"{example.dtype} {list(example.shape)}".removeprefix("torch.")
        raise OfframpError("module", type(module).__name__, f"does not run on {shown} ({reason})") from None
    if not isinstance(answer, Tensor) or answer.ndim != 2 or len(answer) != len(example):
        given = f"a tensor {list(answer.shape)}" if isinstance(answer, Tensor) else type(answer).__name__
        raise OfframpError(
            "module", type(module).__name__, f"gives {given}, must give one tensor [n, classes]"
        )
    return answer


@dataclass(frozen=True, slots=True)
class _Way:
    """Whether an output is on the way, whether alone, and the first module that gave the same tensor."""

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


def _follow(module: nn.Module, example: Tensor) -> dict[str, _Way]:
    """How each submodule's output lies between input and answer.

    Read from the graph that torch keeps for gradients.
    """
    sources, nodes = _Sources(), {}

    def note(name: str) -> Hook:
        def hook(part: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                nodes[name] = output.grad_fn

        return hook

    with (
        torch.enable_grad(),
        hooked(module, {name: note(name) for name, _ in module.named_modules() if name}),
    ):
        if example.is_floating_point():
            answer = _run(module, sources.start(example))
        else:
            with _FirstFloats(sources, example):
                answer = _run(module, example)
        ends = {id(leaf) for leaf in sources.leaves}
        before = _ancestors(answer.grad_fn, None)
        ways: dict[str, _Way] = {}
        makers: dict[Any, str] = {}
        for name, node in nodes.items():
            on = node is not None and node in before
            around = _ancestors(answer.grad_fn, node) if on else set()
            alone = on and not any(id(getattr(other, "variable", None)) in ends for other in around)
            ways[name] = _Way(on, alone, makers.setdefault(node, name) if on else name)
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
