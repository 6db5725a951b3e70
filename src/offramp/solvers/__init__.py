"""Offline solvers: `solve(instance) -> Schedule`, one file each, named in one table."""

from __future__ import annotations

from offramp.solvers.base import Solver
from offramp.solvers.exact import Exact
from offramp.solvers.serial_dp import SerialDp

SOLVERS: dict[str, type[Solver]] = {
    "exact": Exact,
    "serial-dp": SerialDp,
}

__all__ = ["SOLVERS", "Solver"]
