"""Where a torch module can have an exit: which of its submodules lie on the way, and what comes before each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from offramp.errors import OfframpError
from offramp.training.hooks import BEFORE, Hook, hooked, plain_attention, run, spots
from offramp.training.ways import Way, follow


@dataclass(frozen=True, slots=True)
class Place:
    """The output of one submodule, or what one reads where that is no submodule's output.

    Attributes:
        name: the submodule's, as `named_modules` gives it; after `before:` for what it reads.
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
            raise OfframpError("at", name, "must be one tensor of floats whose first axis is the batch")
        if not place.on_the_way:
            raise OfframpError("at", name, "is not on the way from the input to the answer")
        return place


def trace(module: nn.Module, example: Tensor) -> Trace:
    """Run the module twice in evaluation mode, once for the work before each place, once for what depends on what.

    Args:
        module: takes one tensor and gives logits [n, classes]; left as it was.
        example: what it takes, [n, ...].

    Raises:
        OfframpError: the module does not run on `example`, its answer is not one tensor [n, classes], it
            is not of 32-bit floats, or it is scripted.
    """
    _refuse_foreign(module, example)
    flags = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        with plain_attention():
            outputs, total, classes = _measure(module, example)
            ways = follow(module, example)
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        for part, mode in modes:
            part.training = mode
    places = []
    for name, seen in sorted(outputs.items(), key=lambda item: item[1].order):
        way = ways.get(name, Way(False, False, name))
        macs = outputs[way.made_by].macs
        if name.startswith(BEFORE) and not (way.on and way.made_by == name and macs):
            continue  # the network's own input, or another place's tensor
        places.append(Place(name, seen.calls, seen.shape, macs, way.on, way.alone, macs < seen.macs))
    return Trace(tuple(places), classes, total)


def _refuse_foreign(module: nn.Module, example: Tensor) -> None:
    kind = type(module).__name__
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        raise OfframpError(
            "module", kind, "is compiled to TorchScript", "give the module that it was made from"
        )
    for tensor in (example, *module.parameters(), *module.buffers()):
        if tensor.dtype.is_floating_point and tensor.dtype != torch.float32:
            shown = str(tensor.dtype).removeprefix("torch.")
            raise OfframpError("module", kind, f"computes in {shown}, must be float32", "call its float()")


def macs_of(module: nn.Module, example: Tensor) -> int:
    """Multiply-accumulates of one input's pass through a module, by torch's own count. Mode is left as it is."""
    with _counting() as counter:
        module(example)
    return int(counter.get_total_flops()) // 2 // len(example)


@contextmanager
def _counting() -> Iterator[FlopCounterMode]:
    """Counts matrix products and convolutions. Attention is run as such, since torch counts no fused one."""
    fused: dict[Any, Callable[..., int]] = {torch.ops.aten.mkldnn_rnn_layer: _lstm_flops}
    counter = FlopCounterMode(display=False, custom_mapping=fused)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        yield counter


def _lstm_flops(steps: Sequence[int], weights: Sequence[int], own: Sequence[int], *_: Any, **__: Any) -> int:
    """Of one layer in one direction, from the shapes [t, n, d], [4 units, d] and [4 units, units]; torch has other
    recurrent layers as products."""
    return 2 * steps[0] * steps[1] * (math.prod(weights) + math.prod(own))


def spread(trace: Trace, count: int, fits: Callable[[Place], bool]) -> tuple[str, ...]:
    """`count` places that split the module's work into parts as equal as its structure allows.

    Only places through which everything passes and that `fits` accepts count. Among those with the same
    work before them the last is taken: it is after activation and pooling, and the outermost of nested
    modules. The sum of the distances to equal parts is the least possible.

    Raises:
        OfframpError: there are fewer such places.
    """
    levels: dict[int, str] = {}
    for place in trace.places:
        whole = place.alone and place.calls == 1 and place.shape and not place.handed_on
        if whole and 0 < place.macs < trace.macs and fits(place):
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
    """What each submodule read and gave and the work until then; the whole's work; the number of classes."""
    seen: dict[str, _Seen] = {}
    size = len(example)
    with _counting() as counter:

        def note(name: str) -> Hook:
            def hook(output: Any) -> None:
                entry = seen.setdefault(name, _Seen())
                entry.calls += 1
                entry.order = sum(other.calls for other in seen.values())
                entry.macs = int(counter.get_total_flops()) // 2 // size
                fits = isinstance(output, Tensor) and output.ndim >= 2 and len(output) == size
                entry.shape = tuple(output.shape[1:]) if fits and output.is_floating_point() else None

            return hook

        with hooked(module, {name: note(name) for name in spots(module)}):
            answer = run(module, example)
    return seen, int(counter.get_total_flops()) // 2 // size, int(answer.shape[1])
