"""Fixtures of the whole suite."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import settings

from offramp.profile import ExitCoefficients
from two_nodes import TwoNodes

# Drawn examples run on shared, noisy machines; pytest's own time limit is the guard.
settings.register_profile("offramp", deadline=None)
settings.load_profile("offramp")


@pytest.fixture(scope="session")
def four_exits() -> tuple[ExitCoefficients, ...]:
    """A four-exit network on a device ten times slower than the edge, in the regime of the reference scenario."""
    table = []
    for accuracy, layers, total_s in (
        (0.74, 4, 0.0004),
        (0.78, 5, 0.0007),
        (0.87, 7, 0.0013),
        (0.91, 9, 0.0022),
    ):
        edge_s = np.column_stack([np.full(layers, total_s / layers), np.full(layers, 2e-5)])
        crossing = np.concatenate(([3072.0], np.geomspace(16384, 512, layers - 1), [40.0]))
        output_bytes = np.column_stack([crossing, np.zeros(layers + 1)])
        table.append(ExitCoefficients(accuracy, edge_s.copy(), edge_s, output_bytes))
    return tuple(table)


@pytest.fixture(scope="module")
def running_nodes() -> Iterator[TwoNodes]:
    """Two nodes for a module's tests."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        nodes = TwoNodes()
    except Exception:  # noqa: BLE001 - Ray raises no other; a busy machine may miss the 30 seconds that it allows
        nodes = TwoNodes()
    yield nodes
    nodes.stop()


@pytest.fixture
def nodes(running_nodes: TwoNodes) -> TwoNodes:
    running_nodes.renew()
    return running_nodes
