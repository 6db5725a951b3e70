"""Exits' heads: a few layers, sized to the place where they leave the trunk."""

from __future__ import annotations

from torch import Tensor, nn

from offramp.errors import OfframpError
from offramp.training.places import Place

# A head may take this share of the work before it, or of the work still to come if that is less.
_SHARE = 0.2
_WIDTHS = (16, 256)
_STEP = 8
_SIDES = (8, 4, 2, 1)


def can_read(shape: tuple[int, ...]) -> bool:
    """Whether there is a head for tensors of this shape, the batch left out."""
    return 1 <= len(shape) <= 4


def make_head(place: Place, total_macs: int, classes: int) -> nn.Module:
    """A head for a place's output: [c, h, w] is a feature map, [c, t, h, w] several, [t, d] a sequence of tokens,
    [d] a vector.

    Its width grows with the work of the trunk around it, so that no exit spends on its head what the
    next layers would take.

    Raises:
        OfframpError: the output has more axes.
    """
    assert place.shape is not None
    budget = _SHARE * min(place.macs, total_macs - place.macs)
    match place.shape:
        case (channels, height, width):
            return MapHead(channels, height, width, classes, budget)
        case (channels, _, height, width):
            return VolumeHead(channels, height, width, classes, budget)
        case (_, features):
            return TokenHead(features, classes, budget)
        case (features,):
            return VectorHead(features, classes, budget)
    raise OfframpError(
        "at", place.name, f"what one input gives there is {list(place.shape)}, must have 1 to 4 axes"
    )


class MapHead(nn.Sequential):
    """Mean pooling, one convolution, maximum pooling to about 2×2, one linear layer.

    The map is pooled to at most 8×8, 4×4, 2×2 or 1×1, the largest on which the budget allows the least width.
    """

    def __init__(self, channels: int, height: int, width: int, classes: int, budget: float) -> None:
        for largest in _SIDES:
            first = [-(-side // largest) for side in (height, width)]
            sides = [side // step for side, step in zip((height, width), first, strict=True)]
            kernel = 3 if min(sides) >= 3 else 1
            allowed = budget / (channels * kernel**2 * sides[0] * sides[1])
            if allowed >= _WIDTHS[0]:
                break
        filters = _fit(allowed)
        second = [max(1, side // 2) for side in sides]
        left = [side // step for side, step in zip(sides, second, strict=True)]
        super().__init__(
            nn.AvgPool2d((first[0], first[1])),
            nn.Conv2d(channels, filters, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(filters),
            nn.ReLU(),
            nn.MaxPool2d((second[0], second[1])),
            nn.Flatten(),
            nn.Linear(filters * left[0] * left[1], classes),
        )


class VolumeHead(nn.Module):
    """A feature map's head on the mean of the maps, over depth or time."""

    def __init__(self, channels: int, height: int, width: int, classes: int, budget: float) -> None:
        super().__init__()
        self.map = MapHead(channels, height, width, classes, budget)

    def forward(self, volume: Tensor) -> Tensor:
        """Logits [n, classes] for maps [n, channels, t, height, width]."""
        answer: Tensor = self.map(volume.mean(dim=2))
        return answer


class TokenHead(nn.Module):
    """A learned weighted mean over the tokens and two linear layers."""

    def __init__(self, features: int, classes: int, budget: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(features)
        self.score = nn.Linear(features, 1)
        self.answer = _two_layers(features, classes, budget)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits [n, classes] for tokens [n, t, features]."""
        tokens = self.norm(tokens)
        mean = (self.score(tokens).softmax(dim=1) * tokens).sum(dim=1)
        answer: Tensor = self.answer(mean)
        return answer


class VectorHead(nn.Sequential):
    """Two linear layers."""

    def __init__(self, features: int, classes: int, budget: float) -> None:
        super().__init__(nn.LayerNorm(features), _two_layers(features, classes, budget))


def _two_layers(features: int, classes: int, budget: float) -> nn.Sequential:
    units = _fit(budget / (features + classes))
    return nn.Sequential(nn.Linear(features, units), nn.GELU(), nn.Linear(units, classes))


def _fit(units: float) -> int:
    """The number of filters or units that a budget allows, within bounds and in steps that processors like."""
    least, most = _WIDTHS
    return min(most, max(least, int(units) // _STEP * _STEP))
