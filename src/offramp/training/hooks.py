"""Reading tensors of a torch module while it runs as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from offramp.errors import OfframpError

BEFORE = "before:"
"""Before a submodule's name: what it reads, instead of its output."""

Hook = Callable[[Any], Any]
"""Is given a tensor, or whatever the module has in its place; what it returns, if anything, takes its place."""


def spots(module: nn.Module) -> Iterator[str]:
    """Every name that `hooked` knows: for each submodule what it reads and its output."""
    for name, _ in module.named_modules():
        if name:
            yield f"{BEFORE}{name}"
            yield name


@contextmanager
def hooked(module: nn.Module, hooks: dict[str, Hook]) -> Iterator[None]:
    """Hooks on submodules, by the names of `spots`, for the time of the block; the module keeps none."""
    with ExitStack() as handles:
        for name, hook in hooks.items():
            part = module.get_submodule(name.removeprefix(BEFORE))
            handle = (
                part.register_forward_pre_hook(_reading(hook))
                if name.startswith(BEFORE)
                else part.register_forward_hook(_writing(hook))
            )
            handles.callback(handle.remove)
        yield


def _reading(hook: Hook) -> Callable[[nn.Module, Any], Any]:
    def before(part: nn.Module, args: tuple[Any, ...]) -> Any:
        stead = hook(args[0] if args else None)
        return None if stead is None else (stead, *args[1:])

    return before


def _writing(hook: Hook) -> Callable[[nn.Module, Any, Any], Any]:
    return lambda part, args, output: hook(output)


@contextmanager
def plain_attention() -> Iterator[None]:
    """Keep torch's attention layers from a fused path on which their submodules are not run."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def run(module: nn.Module, example: Tensor) -> Tensor:
    """The module's answer, one tensor [n, classes]. Raises OfframpError if it does not run or gives another."""
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
