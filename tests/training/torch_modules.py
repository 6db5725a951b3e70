"""Small torch modules of the kinds that people bring: none knows anything of exits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SIDE, CLASSES, TOKENS, WORDS = 16, 5, 12, 30


def plain() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((3, 8, 1), (8, 16, 2), (16, 16, 1), (16, 32, 2), (32, 32, 1)):
        layers += [
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(True),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES))


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = (
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.conv2, self.norm2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        y += self.shortcut(x)
        return self.relu(y)


class Residual(nn.Module):
    """With shared and in-place activations, a part that is never run, and one whose result is thrown away."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(True))
        self.stages = nn.Sequential(Block(8, 8, 1), Block(8, 16, 2), Block(16, 16, 1), Block(16, 32, 2))
        self.classify = nn.Linear(32, CLASSES)
        self.spare = nn.Linear(3, 3)
        self.aside = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        self.aside(x)
        return self.classify(self.stages(x).mean((2, 3)))


def separable() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1)]
    for inputs, outputs, stride in ((16, 24, 1), (24, 32, 2), (32, 32, 1), (32, 48, 2)):
        layers.append(
            nn.Sequential(
                nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
                nn.BatchNorm2d(inputs),
                nn.ReLU6(),
                nn.Conv2d(inputs, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.Hardswish(),
            )
        )
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(48, CLASSES))


class Transformer(nn.Module):
    """A vision transformer with a class token, made of torch's own encoder layers."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 32))
        self.position = nn.Parameter(torch.randn(1, 17, 32))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True) for _ in range(4)
        )
        self.norm, self.classify = nn.LayerNorm(32), nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.position
        for layer in self.layers:
            x = layer(x)
        return self.classify(self.norm(x)[:, 0])


class Words(nn.Module):
    """Reads word numbers, not floats."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, 16)
        self.layers = nn.Sequential(
            *(nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16), nn.GELU()) for _ in range(4))
        )
        self.classify = nn.Linear(16, CLASSES)

    def forward(self, words: Tensor) -> Tensor:
        return self.classify(self.layers(self.embed(words)).mean(1))


class Mixer(nn.Module):
    """Adds to its shortcuts in its own forward pass: no submodule has for its output what everything passes through."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.tokens = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))
        self.features = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)) for _ in range(3)
        )
        self.classify = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        for tokens, features in zip(self.tokens, self.features, strict=True):
            x = x + tokens(x.transpose(1, 2)).transpose(1, 2)
            x = x + features(x)
        return self.classify(x.mean(1))


class Bytes(nn.Module):
    """Reads images as cameras give them and normalises them itself."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = plain()

    def forward(self, images: Tensor) -> Tensor:
        return self.inner((images.permute(0, 3, 1, 2) - 127.5) / 60)


def vector() -> nn.Module:
    return nn.Sequential(
        *(nn.Sequential(nn.Linear(20, 20), nn.ReLU()) for _ in range(5)), nn.Linear(20, CLASSES)
    )


MODULES = {
    "plain": plain,
    "residual": Residual,
    "separable": separable,
    "transformer": Transformer,
    "words": Words,
    "vector": vector,
    "bytes": Bytes,
    "mixer": Mixer,
}


def make_module(kind: str) -> nn.Module:
    """A module with first weights, and batch norm statistics that are not those of a new one."""
    torch.manual_seed(0)
    module = MODULES[kind]()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.normal_(part.running_mean)
    return module


def inputs_for(kind: str, count: int, seed: int = 0) -> Tensor:
    """Inputs of the kind's type and shape."""
    rng = torch.Generator().manual_seed(seed)
    if kind == "words":
        return torch.randint(0, WORDS, (count, TOKENS), generator=rng)
    if kind == "bytes":
        return torch.randint(0, 256, (count, SIDE, SIDE, 3), generator=rng).to(torch.uint8)
    shape = (20,) if kind == "vector" else (3, SIDE, SIDE)
    return torch.randn((count, *shape), generator=rng)
