"""Value iteration over backlogs for the average gain of an endless stream, and the crowd that it meets.

One device and the edge are tracked. The other devices' backlogs are drawn from the distribution that the plan
itself brings about, given the edge's backlog; a few rounds between plan and distribution reach the fixed point.
With one device nothing is approximate but the grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from offramp.equations import FloatArray
from offramp.policies.planning import kernels
from offramp.policies.planning.problem import KindOptions, Problem

ROUNDS = 3
IMPROVEMENTS = 8
SWEEPS = 12
CROWD_SWEEPS = 40
TOLERANCE = 1e-4
"""Value differences below this share of a task's gain end an iteration early."""

_PRIOR_MASS = 1e-6


@dataclass(eq=False)
class _Tracked:
    """Working arrays of one kind of device; see `kernels` for their shapes."""

    options: KindOptions
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
    def blank(cls, options: KindOptions, points: int, classes: int) -> _Tracked:
        square = (points, points)
        idle = np.zeros(square)
        idle[0, 0] = 1.0
        behind = np.zeros(square)
        behind[0, :] = 1.0
        return cls(
            options=options,
            after=np.zeros(square),
            scratch=np.zeros(square),
            place=np.zeros((*square, classes, 2), dtype=np.int16),
            above=np.zeros((*square, classes, 2), dtype=np.float32),
            reward=np.zeros((*square, classes), dtype=np.float32),
            now=idle,
            behind=behind,
            moves=np.zeros(square),
            earned=np.zeros(points),
        )


def working_bytes(problem: Problem) -> int:
    """Memory that `solve` will take for its arrays, bytes."""
    square = problem.points**2
    each = square * (6 * 8 + len(problem.budget_s) * (2 * 2 + 2 * 4 + 4))
    return each * len(problem.kinds)


def solve(problem: Problem) -> FloatArray:
    """Values after a decision: (kinds, points, points) over own device's and edge's backlog, relative to idle.

    At most `ROUNDS` · `IMPROVEMENTS` improvements, each with `SWEEPS` sweeps, whatever the problem.
    """
    classes = len(problem.budget_s)
    tracked = [_Tracked.blank(options, problem.points, classes) for options in problem.options]
    for final in [False] * (ROUNDS - 1) + [True]:
        _plan(problem, tracked)
        if not final and problem.own_share[0] < 1.0:
            for number in range(len(tracked)):
                _meet_crowd(problem, tracked, number)
    return np.stack([kind.after for kind in tracked])


def _plan(problem: Problem, tracked: list[_Tracked]) -> None:
    """Policy iteration for every kind against the crowd as it is."""
    for _ in range(IMPROVEMENTS):
        for kind in tracked:
            options = kind.options
            kernels.improve(
                kind.after,
                problem.step_s,
                options.start,
                problem.budget_s,
                options.head_s,
                options.upload_s,
                options.tail_s,
                options.gain,
                kind.place,
                kind.above,
                kind.reward,
            )
            kind.moves[:] = 0.0
            kind.earned[:] = 0.0
            kernels.others_moves(
                kind.behind,
                problem.class_share,
                kind.place,
                kind.above,
                kind.reward,
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
    kind = tracked[number]
    moves, earned = _others(problem, tracked, number)
    before = np.zeros_like(kind.after)
    first_change = 0.0
    for sweep in range(SWEEPS):
        kernels.own_value(kind.after, problem.class_share, kind.place, kind.above, kind.reward, before)
        kernels.others_value(kind.after, moves, earned, float(problem.own_share[number]), before)
        kernels.until_next(before, problem.gap_steps, problem.gap_share, kind.scratch)
        kind.scratch -= kind.scratch[0, 0]
        change = float(np.ptp(kind.scratch - kind.after))
        kind.after, kind.scratch = kind.scratch, kind.after
        if sweep == 0:
            first_change = change
        if change < TOLERANCE / 10:
            break
    return first_change


def _meet_crowd(problem: Problem, tracked: list[_Tracked], number: int) -> None:
    """Distribution of a device's backlog given the edge's, at arrivals, under the stored choices."""
    kind = tracked[number]
    moves, _ = _others(problem, tracked, number)
    moved, later, following = (np.zeros_like(kind.now) for _ in range(3))
    for _ in range(CROWD_SWEEPS):
        kernels.others_spread(kind.now, moves, moved)
        kernels.spread(
            kind.now,
            float(problem.own_share[number]),
            problem.class_share,
            kind.place,
            kind.above,
            moved,
            later,
        )
        kernels.run_down(later, problem.gap_steps, problem.gap_share, following)
        change = float(np.abs(following - kind.now).sum())
        kind.now, following = following, kind.now
        if change < TOLERANCE:
            break
    # Where the edge is hardly ever so far behind, what is known of the device alone stands in.
    alone = np.triu(np.broadcast_to(kind.now.sum(axis=1)[:, None], kind.now.shape))
    alone = alone / alone.sum(axis=0)
    kind.behind = (kind.now + _PRIOR_MASS * alone) / (kind.now.sum(axis=0) + _PRIOR_MASS)
