"""Value iteration over backlogs for the average gain of an endless stream, and the crowd that it meets.

One device and the edge are tracked. The other devices' backlogs are drawn from the distribution that the plan
itself brings about, given the edge's backlog; a few rounds between plan and distribution reach the fixed point.
With one device nothing is approximate but the grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from types import ModuleType
from typing import Any

import numpy as np

from offramp.equations import FloatArray
from offramp.observation import Timing
from offramp.policies.planning import network_kernels, paper_kernels
from offramp.policies.planning.problem import Options, Problem
from offramp.policies.planning.shared_kernels import others_moves, others_spread, others_value

ROUNDS = 3
IMPROVEMENTS = 8
SWEEPS = 12
CROWD_SWEEPS = 40
TOLERANCE = 1e-4
"""Value differences below this share of a task's gain end an iteration early."""

_PRIOR_MASS = 1e-6
_KERNELS: dict[Timing, ModuleType] = {"paper": paper_kernels, "network": network_kernels}


@dataclass(eq=False)
class _Tracked:
    """Working arrays of one kind of device; see the timing models' kernels for their shapes."""

    options: Options
    after: FloatArray
    scratch: FloatArray
    place: FloatArray
    above: FloatArray
    reward: FloatArray
    now: FloatArray
    behind: FloatArray
    moves: FloatArray
    earned: FloatArray

    @classmethod
    def blank(cls, options: Options, shape: tuple[int, ...], classes: int) -> _Tracked:
        idle, behind = np.zeros(shape), np.zeros(shape)
        idle[(0,) * len(shape)] = 1.0
        behind[(0,) * (len(shape) - 1)] = 1.0
        return cls(
            options=options,
            after=np.zeros(shape),
            scratch=np.zeros(shape),
            place=np.zeros((*shape, classes, len(shape)), dtype=np.int16),
            above=np.zeros((*shape, classes, len(shape)), dtype=np.float32),
            reward=np.zeros((*shape, classes), dtype=np.float32),
            now=idle,
            behind=behind,
            moves=np.zeros((shape[-1], shape[-1])),
            earned=np.zeros(shape[-1]),
        )


def working_bytes(problem: Problem) -> int:
    """Memory that `solve` takes for its arrays, bytes, give or take what numba needs to run."""
    classes, axes = len(problem.budget_s), len(problem.shape)
    each = prod(problem.shape) * (8 * 8 + classes * (axes * (2 + 4) + 4)) + 3 * 8 * problem.shape[-1] ** 2
    return each * len(problem.kinds)


def solve(problem: Problem) -> FloatArray:
    """Values after a decision: (kinds, *shape) over the backlogs, relative to idle.

    At most `ROUNDS` · `IMPROVEMENTS` improvements, each with `SWEEPS` sweeps, whatever the problem.
    """
    classes = len(problem.budget_s)
    tracked = [_Tracked.blank(options, problem.shape, classes) for options in problem.options]
    for final in [False] * (ROUNDS - 1) + [True]:
        _plan(problem, tracked)
        if not final and problem.own_share[0] < 1.0:
            for number in range(len(tracked)):
                _meet_crowd(problem, tracked, number)
    return np.stack([kind.after for kind in tracked])


def _by_edge(table: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A table (…, E) as (S, E)."""
    return table.reshape(-1, table.shape[-1])


def _plan(problem: Problem, tracked: list[_Tracked]) -> None:
    """Policy iteration for every kind against the crowd as it is."""
    kernels = _KERNELS[problem.timing]
    for _ in range(IMPROVEMENTS):
        for kind in tracked:
            kernels.improve(
                kind.after,
                problem.grid,
                problem.terms,
                kind.options,
                problem.budget_s,
                kind.place,
                kind.above,
                kind.reward,
            )
            kind.moves[:] = 0.0
            kind.earned[:] = 0.0
            own_states, edge_points = _by_edge(kind.after).shape
            others_moves(
                _by_edge(kind.behind),
                problem.class_share,
                kind.place.reshape(own_states, edge_points, *kind.place.shape[-2:]),
                kind.above.reshape(own_states, edge_points, *kind.above.shape[-2:]),
                kind.reward.reshape(own_states, edge_points, -1),
                kind.moves,
                kind.earned,
            )
        changes = [_evaluate(problem, tracked, number) for number in range(len(tracked))]
        if max(changes) < TOLERANCE:
            break


def _others(problem: Problem, tracked: list[_Tracked], number: int) -> tuple[FloatArray, FloatArray]:
    """Moves and earnings of the tasks that are not the tracked device's, weighted by their share of all tasks."""
    moves, earned = np.zeros_like(tracked[0].moves), np.zeros_like(tracked[0].earned)
    for other, kind in enumerate(tracked):
        share = problem.kind_share[other] - (problem.own_share[other] if other == number else 0.0)
        moves += share * kind.moves
        earned += share * kind.earned
    return moves, earned


def _evaluate(problem: Problem, tracked: list[_Tracked], number: int) -> float:
    """Sweep the stored choices; returns how much the first sweep changed the values (span)."""
    kernels, kind = _KERNELS[problem.timing], tracked[number]
    own_share = float(problem.own_share[number])
    moves, earned = _others(problem, tracked, number)
    before = np.zeros_like(kind.after)
    first_change = 0.0
    for sweep in range(SWEEPS):
        kernels.own_value(kind.after, problem.class_share, kind.place, kind.above, kind.reward, before)
        others_value(_by_edge(kind.after), moves, earned, own_share, _by_edge(before))
        kernels.until_next(before, problem.grid, problem.gap_steps, problem.gap_share, kind.scratch)
        kind.scratch -= kind.scratch.flat[0]
        change = float(np.ptp(kind.scratch - kind.after))
        kind.after, kind.scratch = kind.scratch, kind.after
        if sweep == 0:
            first_change = change
        if change < TOLERANCE / 10:
            break
    return first_change


def _meet_crowd(problem: Problem, tracked: list[_Tracked], number: int) -> None:
    """Distribution of a device's backlog given the edge's, at arrivals, under the stored choices."""
    kernels, kind = _KERNELS[problem.timing], tracked[number]
    moves, _ = _others(problem, tracked, number)
    moved, later, following = (np.zeros_like(kind.now) for _ in range(3))
    for _ in range(CROWD_SWEEPS):
        others_spread(_by_edge(kind.now), moves, _by_edge(moved))
        kernels.spread(
            kind.now,
            float(problem.own_share[number]),
            problem.class_share,
            kind.place,
            kind.above,
            moved,
            later,
        )
        kernels.run_down(later, problem.grid, problem.gap_steps, problem.gap_share, following)
        change = float(np.abs(following - kind.now).sum())
        kind.now, following = following, kind.now
        if change < TOLERANCE:
            break
    # Where the edge is hardly ever so far behind, what is known of the device alone stands in.
    now, behind = _by_edge(kind.now), _by_edge(kind.behind)
    alone = np.broadcast_to(now.sum(axis=1)[:, None], now.shape)
    if problem.timing == "paper":
        alone = np.triu(alone)
    behind[:] = now + _PRIOR_MASS * alone / alone.sum(axis=0)
    behind /= behind.sum(axis=0)
