"""A policy over a long stream of one edge and its devices, some thousands of tasks at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from offramp.bulk import Stretch, TaskStream
from offramp.equations import FloatArray
from offramp.fleet.tally import Tally
from offramp.instance import check_predictions, system_of
from offramp.observation import Timing
from offramp.policies import Policy, notice_of
from offramp.policies.planner import Planner
from offramp.profile import ExitCoefficients
from offramp.scenario import Scenario
from offramp.task import Task

STRETCH = 1 << 16
"""Tasks that are drawn at once. The outcome does not depend on it, the memory does."""


@dataclass(frozen=True, slots=True, eq=False)
class Streamed:
    """What came of a stream; `notice` says why something else decided in the policy's place, None if nothing did."""

    tally: Tally
    notice: str | None


def play_stream(
    scenario: Scenario,
    exits: tuple[ExitCoefficients, ...],
    policy: Policy,
    timing: Timing,
    rng: np.random.Generator,
    stretch: int = STRETCH,
) -> Streamed:
    """Let a policy decide `scenario.tasks` tasks and count what comes of them.

    They are the tasks that `draw_instance` draws from the same generator, and the counts are those of `simulate`'s
    schedule; memory does not grow with them. The policy must have a compiled form, see
    `fleet.translate.check_policy`. MissingExtraError without numba.
    """
    from offramp.fleet import edge_kernels, rules, translate

    sizes = scenario.sizes.values
    occurring = [size for size, share in zip(sizes, scenario.sizes.probabilities(), strict=True) if share > 0]
    check_predictions(exits, set(occurring), "scenario")
    system = system_of(scenario, exits)
    budget_s = np.array([scenario.budget_s(size) for size in sizes])
    world = translate.make_world(system, sizes, budget_s, timing)
    standing = translate.make_standing(system, timing)
    counts = np.zeros((len(sizes), 1 + len(world.exit), 3), np.int64)
    stream = TaskStream(scenario, rng)
    rule = translate.rule_of(policy, system, sizes)
    last_s, left = 0.0, scenario.tasks
    while left:
        tasks = stream.take(min(stretch, left))
        left -= len(tasks.arrival_s)
        last_s = float(tasks.arrival_s[-1])
        for part, changes in _parts(policy, tasks, scenario, budget_s):
            done = 0
            while done < len(part.arrival_s):
                rest = part.part(done)
                done += rules.play(rule, world, standing, rest.arrival_s, rest.size, rest.device, counts)
                if done < len(part.arrival_s):
                    standing = translate.with_more_room(standing)
            if changes:
                rule = translate.rule_of(policy, system, sizes)
    edge_kernels.run_edge(world, standing, np.inf, counts)
    worked_s = float(standing.busy_s[0]) / len(standing.worker_free_s)
    load = worked_s / last_s if last_s > 0 else 0.0
    return Streamed(Tally(counts, last_s, load), notice_of(policy))


def _parts(
    policy: Policy, tasks: Stretch, scenario: Scenario, budget_s: FloatArray
) -> Iterator[tuple[Stretch, bool]]:
    """Tasks that a policy decides alike, and whether it has changed its mind by the one after them.

    Only a planner that plans anew does that. It watches the tasks alone, so it can see them before they are played.
    """
    first = 0
    if isinstance(policy, Planner) and not policy.settled:
        sizes = scenario.sizes.values
        columns = (column.tolist() for column in tasks)
        for number, (arrival_s, size, device) in enumerate(zip(*columns, strict=True)):
            before = policy.plan
            policy.keep_up(Task(arrival_s, sizes[size], float(budget_s[size]), device))
            if policy.plan is not before:
                yield tasks.part(first, number), True
                first = number
    yield tasks.part(first), False
