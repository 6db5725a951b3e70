"""Muon for weight matrices and filters, AdamW for everything else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class Muon(torch.optim.Optimizer):
    """Momentum whose step is replaced by its nearest (semi-)orthogonal matrix (Jordan et al., 2024).

    Meant for layers followed by batch norm, whose output does not depend on the weight's length: before
    each step a weight is brought back to the length of an orthogonal matrix of its shape, so that `lr` is
    the relative size of a step whatever the layer. Filters [out, in, h, w] count as matrices
    [out, in·h·w].
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # there is no loss to evaluate
        """Take one step, without a closure; parameters without a gradient stay as they are."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"].mul_(group["momentum"]).add_(weight.grad)
                direction = weight.grad.add(momentum, alpha=group["momentum"])
                weight.mul_(len(weight) ** 0.5 / weight.norm().clamp_min(1e-7))
                weight.add_(orthogonalise(direction.flatten(1)).view_as(weight), alpha=-group["lr"])


def orthogonalise(matrix: Tensor, steps: int = 4) -> Tensor:
    """Bring all singular values of [rows, columns] near 1 by Newton-Schulz iteration.

    The quintic's coefficients are those of Jordan et al.: fast rather than exact, singular values end
    between about 0.7 and 1.2.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x.bfloat16()
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = (x.T if tall else x).to(matrix.dtype)
    return result


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The weights that batch norm follows (no bias of their own), and all other parameters."""
    scaled: list[nn.Parameter] = [
        module.get_parameter("weight")
        for module in model.modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is None
    ]
    chosen = {id(weight) for weight in scaled}
    return scaled, [p for p in model.parameters() if id(p) not in chosen]
