"""What exits that are trained together minimise, and how fast they learn over a run."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional


def joint_loss(
    outputs: Sequence[Tensor],
    labels: Tensor,
    weights: Sequence[float],
    *,
    smoothing: float,
    distillation: float,
    temperature: float,
    taught: Tensor | None = None,
) -> Tensor:
    """Weighted sum over exits of cross-entropy and distance to the teacher's answer.

    Without `taught` the last exit teaches the others, gets no gradient for it and has no teacher itself.

    Args:
        outputs: logits [n, classes] of each exit.
        labels: int64 [n], or probabilities [n, classes].
        weights: what each exit adds.
        smoothing: label smoothing of the cross-entropy, in [0, 1).
        distillation: share of a taught exit's loss that is the distance, in [0, 1].
        temperature: > 0, softens both answers in the distance.
        taught: logits [n, classes] of a network that teaches all exits.
    """
    answer = outputs[-1].detach() if taught is None else taught
    teacher = functional.softmax(answer / temperature, dim=1)
    total = outputs[0].new_zeros(())
    for number, (weight, logits) in enumerate(zip(weights, outputs, strict=True)):
        loss = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        if taught is not None or number < len(outputs) - 1:
            distance = functional.kl_div(
                functional.log_softmax(logits / temperature, dim=1), teacher, reduction="batchmean"
            )
            loss = (1 - distillation) * loss + distillation * temperature**2 * distance
        total = total + weight * loss
    return total


def rate_share(done: int, steps: int, rising: float, falling: float) -> float:
    """The share of the peak rate, in (0, 1], after `done` of `steps`: up in a line over `rising` steps,
    constant, and down in a line over the last `falling` to almost nothing."""
    return min(1.0, (done + 1) / max(1.0, rising), (steps - done) / max(1.0, falling))
