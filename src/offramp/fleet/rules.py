"""Policies as compiled loops decide by them: for each the numbers that it goes by, and its choice from what it finds.

The arithmetic of `planner` and the learned policies is their own kernels'. Importing this module loads numba.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba.extending import overload

from offramp import equations
from offramp.equations import BoolArray, FloatArray, IntArray
from offramp.fleet.edge_kernels import has_room, run_edge
from offramp.fleet.kernels import Found, commit, find, predict
from offramp.fleet.world import Standing, World
from offramp.policies import ddqn_kernels, ddqn_paper_kernels
from offramp.policies.planning import network_kernels, paper_kernels
from offramp.policies.planning.problem import Grid, Options, Terms
from offramp.policies.planning.shared_kernels import on_time
from offramp.policies.stream_kernels import observe
from offramp.solvers.compiled import compiled

DROP_ROW = -1

unqueued_finish: Any = compiled(equations.unqueued_finish)


class Best(NamedTuple):
    """The greatest gain among permitted rows, (kinds, sizes, rows), that finish in time, `queued` or as if alone."""

    permitted: BoolArray
    queued: bool


class DeepestAlone(NamedTuple):
    """`edgent`: the deepest exit of which a row fits alone, at its fastest cut: `fastest` (kinds, sizes, exits)."""

    fastest: IntArray


class Fixed(NamedTuple):
    """One row whatever the state: (kinds, sizes)."""

    row: IntArray


class Chance(NamedTuple):
    """An exit evenly from 0, then one of its rows: exit e has rows first[e - 1] to before first[e]."""

    first: IntArray
    rng: np.random.Generator


class Planned(NamedTuple):
    """Candidates of (kind, size) pair n, rows first[n] to before first[n + 1] of `row` and `options`, and their plan.

    `table` (kinds,) is the place in `after` of each kind's table.
    """

    after: FloatArray
    grid: Grid
    table: IntArray
    first: IntArray
    row: IntArray
    options: Options


class PlannedNetwork(NamedTuple):
    """The same under `network`."""

    after: FloatArray
    grid: Grid
    terms: Terms
    table: IntArray
    first: IntArray
    row: IntArray
    options: Options


class Learned(NamedTuple):
    """`ddqn`: see its kernels."""

    outlook: ddqn_kernels.Tables
    layers: ddqn_kernels.Layers
    discount: float


class LearnedPaper(NamedTuple):
    """`ddqn-paper`: see its kernels."""

    network: ddqn_paper_kernels.Network
    scale: FloatArray


Rule = Best | DeepestAlone | Fixed | Chance | Planned | PlannedNetwork | Learned | LearnedPaper


@compiled
def _alone(world: World, found: Found, row: int) -> float:
    finish_s: float = unqueued_finish(
        found.arrival_s,
        world.head_s[found.kind, found.size, row],
        world.upload_s[found.kind, found.size, row],
        world.tail_s[found.kind, found.size, row],
    )
    return finish_s


def _best(rule: Best, world: World, found: Found) -> int:
    best, best_gain, best_finish_s = DROP_ROW, -np.inf, np.inf
    gain = world.gain[found.kind, found.size]
    permitted = rule.permitted[found.kind, found.size]
    for row in range(len(gain)):
        if not permitted[row] or gain[row] < best_gain:
            continue
        finish_s = predict(world, found, row)[2] if rule.queued else _alone(world, found, row)
        if on_time(finish_s, found.deadline_s) and (gain[row] > best_gain or finish_s < best_finish_s):
            best, best_gain, best_finish_s = row, gain[row], finish_s
    return best


def _deepest_alone(rule: DeepestAlone, world: World, found: Found) -> int:
    deepest = 0
    for row in range(len(world.exit)):
        if world.exit[row] > deepest and on_time(_alone(world, found, row), found.deadline_s):
            deepest = world.exit[row]
    return DROP_ROW if deepest == 0 else int(rule.fastest[found.kind, found.size, deepest - 1])


def _fixed(rule: Fixed, world: World, found: Found) -> int:
    return int(rule.row[found.kind, found.size])


def _chance(rule: Chance, world: World, found: Found) -> int:
    exit = rule.rng.integers(0, len(rule.first))
    if exit == 0:
        return DROP_ROW
    first = rule.first[exit - 1]
    return int(first + rule.rng.integers(0, rule.first[exit] - first))


def _planned(rule: Planned, world: World, found: Found) -> int:
    pair = found.kind * len(world.size) + found.size
    option = paper_kernels.best_option(
        rule.after[rule.table[found.kind]],
        rule.grid,
        max(0.0, found.device_free_s - found.arrival_s),
        max(0.0, found.edge_free_s[-1] - found.arrival_s),
        found.deadline_s - found.arrival_s,
        rule.options,
        rule.first[pair],
        rule.first[pair + 1],
    )
    return DROP_ROW if option < 0 else rule.row[option]


def _planned_network(rule: PlannedNetwork, world: World, found: Found) -> int:
    pair = found.kind * len(world.size) + found.size
    first, last = rule.first[pair], rule.first[pair + 1]
    now_s = found.arrival_s
    situation = network_kernels.Situation(
        found.ready_s - now_s,
        found.deadline_s - now_s,
        found.device_free_s - now_s,
        found.link_free_s - now_s,
        network_kernels.edge_work(now_s, found.edge_arrivals_s, found.edge_free_s),
        found.edge_arrivals_s - now_s,
        found.edge_free_s - now_s,
    )
    options = Options(
        rule.options.start,
        rule.options.head_s[first:last],
        rule.options.upload_s[first:last],
        rule.options.tail_s[first:last],
        rule.options.gain[first:last],
        rule.options.local[first:last],
    )
    after = rule.after[rule.table[found.kind]]
    option = network_kernels.prompt_option(after, rule.grid, rule.terms, situation, options)
    return DROP_ROW if option < 0 else rule.row[first + option]


def _learned(rule: Learned, world: World, found: Found) -> int:
    rows = len(world.exit)
    send_s, release_s, finish_s = np.empty(rows), np.empty(rows), np.empty(rows)
    edge_free_s = found.edge_free_s[-1]
    for row in range(rows):
        send_s[row], start_s, finish_s[row] = predict(world, found, row)
        release_s[row] = finish_s[row]
        if world.network:
            release_s[row] = ddqn_kernels.edge_release(
                world.local[row], edge_free_s, start_s, world.tail_s[found.kind, found.size, row]
            )
    return ddqn_kernels.best_row(
        rule.outlook,
        rule.layers,
        rule.discount,
        found.arrival_s,
        found.deadline_s,
        found.device,
        found.lagging_s,
        edge_free_s,
        send_s,
        release_s,
        finish_s,
        world.gain[found.kind, found.size],
    )


def _learned_paper(rule: LearnedPaper, world: World, found: Found) -> int:
    rows = len(world.exit)
    allowed = np.empty(rows + 1, np.bool_)
    allowed[0] = True
    for row in range(rows):
        allowed[row + 1] = on_time(predict(world, found, row)[2], found.deadline_s)
    state = np.empty(3)
    low, high = np.empty(len(rule.network.first_bias)), np.empty(len(rule.network.second_bias))
    observe(
        state,
        world.size[found.size],
        world.budget_s[found.size],
        found.device_free_s - found.arrival_s,
        found.edge_free_s[-1] - found.arrival_s,
        rule.scale,
    )
    ddqn_paper_kernels.hidden_layers(rule.network, state, low, high)
    return ddqn_paper_kernels.best_action(rule.network, high, allowed) - 1


_CHOICES = {
    Best: _best,
    DeepestAlone: _deepest_alone,
    Fixed: _fixed,
    Chance: _chance,
    Planned: _planned,
    PlannedNetwork: _planned_network,
    Learned: _learned,
    LearnedPaper: _learned_paper,
}


def choose_row(rule: Rule, world: World, found: Found) -> int:
    """The row that a rule chooses, -1 to drop; for compiled callers, which get the code of the rule's own type."""
    choice: Any = _CHOICES[type(rule)]
    row: int = choice(rule, world, found)
    return row


def _choice_of(rule: Any, world: Any, found: Any) -> Any:
    kind: Any = getattr(rule, "instance_class", None)
    return _CHOICES.get(kind)


# Not strict: the annotations of the two differ, which is all that the check would find.
overload(choose_row, strict=False)(_choice_of)


@compiled
def play(
    rule: Rule,
    world: World,
    standing: Standing,
    arrival_s: FloatArray,
    size: IntArray,
    device: IntArray,
    tally: IntArray,
) -> int:
    """Let a rule decide tasks in order of arrival; gives how many were decided before the jobs outgrew their room.

    `tally` (sizes, 1 + rows, 3) counts what comes of them: row 0 is for dropped tasks, the last axis for `ON_TIME`,
    `LATE` and `UNFINISHED`.
    """
    for task in range(len(arrival_s)):
        if world.network:
            run_edge(world, standing, arrival_s[task], tally)
            if not has_room(standing):
                return task
        found = find(world, standing, arrival_s[task], size[task], device[task])
        commit(world, standing, found, choose_row(rule, world, found), tally)
    return len(arrival_s)
