"""Solvers see codecs as more options: the same proofs hold, against the same independent judges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from drawn import TICK_S, build, build_small, with_exits
from hypothesis import given, settings
from hypothesis import strategies as st
from proofs import check_bounds, check_optimum

from offramp.instance import Instance
from offramp.profile import CodedCut, ExitCoefficients
from offramp.solvers import Exact


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
    return with_exits(
        instance,
        (
            replace(exit, codecs=tuple(coded(exit, name) for name in names[: int(rng.integers(most + 1))]))
            for exit in instance.system.exits
        ),
    )


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=150)
def test_exact_equals_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    plain = build_small(rng)
    gain = check_optimum(with_codecs(plain, rng, 2))
    # More to choose from is never worth less, as long as the gains of what there was stay the same.
    assert gain >= Exact().solve(plain).gain - 1e-9


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_serial_dp_and_policies_recompute_and_bounds_hold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    check_bounds(with_codecs(build(rng, 20, 2, 3, 3, 15), rng, 3))
