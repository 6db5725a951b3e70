"""`serial-dp` against the paper's listing."""

from __future__ import annotations

from coefficients import four_exits
from drawn import TICK_S, streams
from hypothesis import given, settings
from judges import listing, recomputed_gain

from offramp.instance import Instance
from offramp.solvers import SOLVERS
from offramp.solvers.serial_dp import SerialDp
