"""Offline solvers: `SOLVERS[name](...).solve(instance) -> Schedule`, one file each, named in one table."""

from __future__ import annotations

from offramp.solvers.base import Solver
from offramp.solvers.exact import Exact
from offramp.solvers.network_bound import NetworkBound
from offramp.solvers.serial_dp import SerialDp

SOLVERS: dict[str, type[Solver]] = {
    "serial-dp": SerialDp,
    "exact": Exact,
    "network-bound": NetworkBound,
}

__all__ = ["SOLVERS", "Exact", "NetworkBound", "SerialDp", "Solver"]
