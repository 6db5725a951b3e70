"""`planner`: the option with the greatest gain plus planned value of the backlog it leaves behind."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import NamedTuple, Self

import numpy as np

from offramp.equations import FloatArray, IntArray
from offramp.observation import Observation, Timing
from offramp.options import OptionTable, System
from offramp.policies.base import Context
from offramp.policies.greedy import Myopic
from offramp.policies.planning.plan import Plan, make_plan
from offramp.policies.planning.problem import (
    COARSE_POINTS,
    FINE_POINTS,
    Grid,
    Kind,
    Options,
    Terms,
    candidates,
    group_kinds,
    make_problem,
    take,
)
from offramp.policies.planning.traffic import Traffic, scenario_traffic
from offramp.policies.planning.watch import TrafficWatch, idle_observation
from offramp.task import DROP, Decision, Task

_LOG = logging.getLogger(__name__)


class Candidates(NamedTuple):
    """Options of one size on one device that can be best, and the table of the device's kind."""

    after: FloatArray
    table: OptionTable
    rows: IntArray
    options: Options
    decisions: tuple[Decision, ...]


_BestRow = Callable[[Observation, Plan, Candidates], int]
"""The row of the candidates that is best for an observation, -1 to drop."""


class Planner:
    """Looks the backlog up that each option leaves, in tables that value iteration made for the traffic.

    The traffic is the scenario's, where that is known, and otherwise estimated from the tasks so far. Either way
    the stream is watched: when it departs from what the plan was made for, the plan is made again from the last
    tasks. That happens between two decisions, or, after `go_live`, beside them: the old plan serves until the
    new one is there.

    Attributes:
        plan: what it goes by; None as long as nothing is known of the traffic.
        settled: whether the plan is kept, whatever tasks come.
    """

    def __init__(
        self, system: System, timing: Timing, traffic: Traffic | None, *, adapt: bool = True
    ) -> None:
        self._best_row = _paper_row() if timing == "paper" else _network_row()
        self._system, self._timing = system, timing
        self._executor: Executor | None = None
        self._pending: Future[Plan] | None = None
        self._candidates: dict[tuple[Kind, int], Candidates] = {}
        self._watch = TrafficWatch(system, traffic, adapt=adapt)
        self._myopic = Myopic()
        self.plan: Plan | None = None
        self.settled = traffic is not None and not adapt
        self._rehearse()
        if traffic is not None:
            self._adopt(self._solve(traffic, FINE_POINTS), traffic)

    @classmethod
    def create(cls, context: Context) -> Self:
        """Plans for the context's scenario, or waits for tasks. MissingExtraError without numba."""
        traffic = None if context.scenario is None else scenario_traffic(context.scenario)
        return cls(context.system, context.timing, traffic, adapt=context.adapt)

    def go_live(self, executor: Executor, clock: Callable[[], float]) -> None:
        """Make further plans in the executor, so that no decision waits for one. The clock is not needed."""
        self._executor = executor

    def decide(self, observation: Observation) -> Decision:
        """Best gain plus planned value among what meets the deadline and dropping; `myopic` before any plan."""
        self.keep_up(observation.task)
        plan = self.plan
        if plan is None:
            return self._myopic.decide(observation)
        task = observation.task
        found = self.candidates_of(plan, task.device, task.size, observation.options)
        if found.table is not observation.options:
            # A live device measures itself: other durations than the plan's, for the same rows.
            found = found._replace(options=take(observation.options, found.rows))
        if observation.chance is not None:
            # What may not arrive in time earns as much less on average; a plan is about averages.
            found = found._replace(options=found.options._replace(gain=observation.expected_gain[found.rows]))
        row = self._best_row(observation, plan, found)
        return found.decisions[row] if row >= 0 else DROP

    def _rehearse(self) -> None:
        """Have the kernel compiled, or fetched from disk, before there is a decision to wait for it."""
        kind = self._system.kind(0)
        options = self._system.options(0, 1)
        after = np.zeros((1, *(2,) * (2 if self._timing == "paper" else 3)))
        blank = Plan(Grid(1.0, 1.0), Terms(0.0, 0.0, 0.0, 1.0), (kind,), after)
        observation = idle_observation(self._system, self._timing, size=1, budget_s=1.0)
        self._best_row(observation, blank, self._find_candidates(blank, kind, 1, options))
        self._candidates = {}

    def _find_candidates(self, plan: Plan, kind: Kind, size: int, options: OptionTable) -> Candidates:
        rows = candidates(options, self._timing)
        found = Candidates(
            plan.table(kind),
            options,
            rows,
            take(options, rows),
            tuple(options.decision(row) for row in rows),
        )
        self._candidates[kind, size] = found
        return found

    def candidates_of(self, plan: Plan, device: int, size: int, options: OptionTable) -> Candidates:
        """What can be best for a device's tasks of a size under `plan`, which must be the one that it goes by."""
        kind = self._system.kind(device)
        found = self._candidates.get((kind, size))
        return self._find_candidates(plan, kind, size, options) if found is None else found

    def keep_up(self, task: Task) -> None:
        """Count a task, take up a plan that has become ready, and start the next one where it is due."""
        self._watch.add(task)
        if self._pending is not None:
            if not self._pending.done():
                return
            pending, self._pending = self._pending, None
            try:
                self._adopt(pending.result(), self._watch.traffic)
            except Exception:  # noqa: BLE001 - whatever it was, the last plan is good for decisions yet
                _LOG.exception("a further plan could not be made, the last one stays")
        traffic = self._watch.news()
        if traffic is None:
            return
        if self._executor is None:
            self._adopt(self._solve(traffic, COARSE_POINTS), traffic)
        else:
            self._pending = self._executor.submit(self._solve, traffic, COARSE_POINTS)

    def _adopt(self, plan: Plan, traffic: Traffic | None) -> None:
        self.plan = plan
        self._candidates = {}
        sizes = () if traffic is None else tuple(one.size for one in traffic.classes)
        # Made now, so that no decision has to; a fleet of many kinds makes its candidates as it meets them.
        for kind, devices in group_kinds(self._system).items():
            for size in sizes:
                self._find_candidates(plan, kind, size, self._system.options(devices[0], size))

    def _solve(self, traffic: Traffic, points: int) -> Plan:
        return make_plan(make_problem(self._system, traffic, self._timing, points))


def _paper_row() -> _BestRow:
    from offramp.policies.planning.paper_kernels import best_option

    def row(observation: Observation, plan: Plan, found: Candidates) -> int:
        task, backlog, now_s = observation.task, observation.backlog, observation.now_s
        return best_option(
            found.after,
            plan.grid,
            max(0.0, float(backlog.device_free_s[task.device]) - now_s),
            max(0.0, float(backlog.edge_free_s[-1]) - now_s),
            task.deadline_s - now_s,
            found.options,
            0,
            len(found.decisions),
        )

    return row


def _network_row() -> _BestRow:
    from offramp.policies.planning.network_kernels import Situation, edge_work, prompt_option

    def row(observation: Observation, plan: Plan, found: Candidates) -> int:
        task, backlog, now_s = observation.task, observation.backlog, observation.now_s
        situation = Situation(
            observation.ready_s - now_s,
            task.deadline_s - now_s,
            float(backlog.device_free_s[task.device]) - now_s,
            float(backlog.link_free_s[task.device]) - now_s,
            edge_work(now_s, backlog.edge_arrivals_s, backlog.edge_free_s),
            backlog.edge_arrivals_s - now_s,
            backlog.edge_free_s - now_s,
        )
        return prompt_option(found.after, plan.grid, plan.terms, situation, found.options)

    return row
