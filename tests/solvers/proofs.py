"""What the solvers promise of any instance, whatever its options come from, put to independent judges."""

from __future__ import annotations

import numpy as np
import pytest
from drawn import TICK_S
from judges import brute_force, recomputed_gain

from offramp.instance import Instance
from offramp.schedule import Schedule
from offramp.simulator import simulate_named
from offramp.solvers import Exact, SerialDp
from offramp.solvers.network_bound import NetworkBound


def decisions(schedule: Schedule) -> list[tuple[int, int, str]]:
    return [(row.exit, row.cut, row.codec) for row in schedule.tasks]


def check_optimum(instance: Instance) -> float:
    """The exact solver's answer is brute force's, and its decisions are worth it; gives the gain."""
    schedule = Exact().solve(instance)
    assert schedule.status == "optimal"
    assert schedule.gain == pytest.approx(brute_force(instance), abs=1e-9)
    assert schedule.gain == pytest.approx(recomputed_gain(instance, decisions(schedule)), abs=1e-9)
    return schedule.gain


def check_bounds(instance: Instance) -> None:
    """Nothing that is reached is above its bound, in either timing model, and all of it is worth what it says."""
    serial = SerialDp(slot_s=TICK_S).solve(instance)
    optimum = Exact().solve(instance)
    bound = NetworkBound(rounds=5).solve(instance)
    assert serial.gain == pytest.approx(recomputed_gain(instance, decisions(serial)), abs=1e-9)
    assert optimum.upper_bound is not None
    assert serial.gain <= optimum.upper_bound + 1e-9
    assert bound.upper_bound is not None
    for policy in ("random", "myopic"):
        paper = simulate_named(instance, policy, "paper", np.random.default_rng(0))
        assert paper.gain == pytest.approx(recomputed_gain(instance, decisions(paper)), abs=1e-9)
        assert paper.gain <= optimum.upper_bound + 1e-9
        gain = simulate_named(instance, policy, "network", np.random.default_rng(0)).gain
        assert gain <= bound.upper_bound + 1e-9
