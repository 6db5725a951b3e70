"""Solvers see codecs as more options: the same proofs hold, against the same independent judges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from drawn import TICK_S, build
from hypothesis import given, settings
from hypothesis import strategies as st
from judges import brute_force, recomputed_gain

from offramp.instance import Instance
from offramp.options import System
from offramp.profile import CodedCut, ExitCoefficients
from offramp.schedule import Schedule
from offramp.simulator import simulate_named
from offramp.solvers import Exact, SerialDp
from offramp.solvers.network_bound import NetworkBound


def with_codecs(instance: Instance, rng: np.random.Generator, most: int) -> Instance:
    """The instance with up to `most` codecs an exit, in ticks as the layers are."""

    def coded(exit: ExitCoefficients, name: str) -> CodedCut:
        cut = int(rng.integers(exit.layers))
        slope, base = exit.output_bytes[cut]
        ticks = rng.integers(0, 2, 4) * TICK_S
        share = float(rng.choice([0.0, 0.5]))
        return CodedCut(
            cut,
            name,
            exit.accuracy * float(rng.choice([0.8, 1.0])),
            (float(ticks[0]), float(ticks[1])),
            (float(ticks[2]), float(ticks[3])),
            (share * float(slope), share * float(base)),
        )

    names = ("fp16", "uint8", "uint8+zstd")
    exits = tuple(
        replace(exit, codecs=tuple(coded(exit, name) for name in names[: int(rng.integers(most + 1))]))
        for exit in instance.system.exits
    )
    old = instance.system
    return Instance(
        System(exits, old.device_slowdown, old.bandwidth_bytes_per_s, old.gain, old.network), instance.tasks
    )


def decisions(schedule: Schedule) -> list[tuple[int, int, str]]:
    return [(row.exit, row.cut, row.codec) for row in schedule.tasks]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=150)
def test_exact_equals_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    plain = build(rng, int(rng.integers(1, 6)), int(rng.integers(1, 4)), int(rng.integers(1, 3)), 2, 20)
    instance = with_codecs(plain, rng, 2)

    schedule = Exact().solve(instance)

    assert schedule.status == "optimal"
    assert schedule.gain == pytest.approx(brute_force(instance), abs=1e-9)
    assert schedule.gain == pytest.approx(recomputed_gain(instance, decisions(schedule)), abs=1e-9)
    # More to choose from is never worth less, as long as the gains of what there was stay the same.
    assert schedule.gain >= Exact().solve(plain).gain - 1e-9


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_serial_dp_recomputes_and_bounds_hold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    instance = with_codecs(build(rng, 20, 2, 3, 3, 15), rng, 3)

    serial = SerialDp(slot_s=TICK_S).solve(instance)
    optimum = Exact().solve(instance)
    bound = NetworkBound(rounds=5).solve(instance)

    assert serial.gain == pytest.approx(recomputed_gain(instance, decisions(serial)), abs=1e-9)
    assert optimum.upper_bound is not None
    assert serial.gain <= optimum.upper_bound + 1e-9
    assert bound.upper_bound is not None
    for policy in ("random", "myopic"):
        gain = simulate_named(instance, policy, "network", np.random.default_rng(0)).gain
        assert gain <= bound.upper_bound + 1e-9
        paper = simulate_named(instance, policy, "paper", np.random.default_rng(0)).gain
        assert paper <= optimum.upper_bound + 1e-9
