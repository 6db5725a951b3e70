"""A made-up model with four exits in the regime of the paper's figures: the fixture of the solvers' tests."""

from __future__ import annotations

import numpy as np

from offramp.profile import ExitCoefficients
from offramp.scenario import REFERENCE_SLOWDOWN

# Per input: ms on a device of the reference scenario, ms on the edge, bytes that leave the layer.
_CONV1 = (2.5, 1.7, 8192.0)
_POOL1 = (0.5, 0.3, 6144.0)
_CONV2 = (4.0, 0.5, 8192.0)
_POOL2 = (0.5, 0.1, 3072.0)
_BRANCH1 = ((2.0, 0.6, 1024.0), (0.3, 0.1, 256.0), (0.7, 0.1, 40.0))
_BRANCH2 = ((4.5, 0.9, 2048.0), (0.5, 0.1, 512.0), (1.0, 0.2, 256.0), (0.5, 0.1, 40.0))
_BRANCH3 = ((8.0, 1.0, 1536.0), (0.5, 0.1, 512.0), (2.0, 0.2, 40.0))
_REST = ((9.0, 0.9, 1536.0), (9.0, 0.7, 1536.0), (7.0, 0.4, 1024.0), (0.5, 0.1, 256.0))
_CLASSIFIER = ((4.0, 0.2, 128.0), (2.0, 0.1, 40.0))
_EXITS = (
    (0.70, (_CONV1, _POOL1, *_BRANCH1)),
    (0.74, (_CONV1, _POOL1, *_BRANCH2)),
    (0.82, (_CONV1, _POOL1, _CONV2, _POOL2, *_BRANCH3)),
    (0.87, (_CONV1, _POOL1, _CONV2, _POOL2, *_REST, *_CLASSIFIER)),
)
_INPUT_BYTES = 3072.0


def four_exits(slowdown: float = REFERENCE_SLOWDOWN) -> tuple[ExitCoefficients, ...]:
    """Coefficients for devices that a scenario slows `slowdown` times (the reference scenario's factor)."""
    exits = []
    for accuracy, layers in _EXITS:
        device_ms, edge_ms, leaving = (np.array(column) for column in zip(*layers, strict=True))
        ones = np.ones(len(layers))
        exits.append(
            ExitCoefficients(
                accuracy,
                np.stack([device_ms, 0.2 * ones], axis=1) * 1e-3 / slowdown,
                np.stack([edge_ms, 0.02 * ones], axis=1) * 1e-3,
                np.stack([np.append(_INPUT_BYTES, leaving), np.full(len(layers) + 1, 16.0)], axis=1),
            )
        )
    return tuple(exits)
