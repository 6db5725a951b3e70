"""Offline solvers: `solve(instance) -> Schedule`, one file each, named in one table."""

from __future__ import annotations

from offramp.solvers.base import Solver
from offramp.solvers.exact import Exact

SOLVERS: dict[str, type[Solver]] = {
    "exact": Exact,
}

__all__ = ["SOLVERS", "Solver"]
