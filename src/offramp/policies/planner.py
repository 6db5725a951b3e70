"""`planner`: the option with the greatest gain plus planned value of the backlog it leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import NamedTuple, Self

from offramp.equations import FloatArray
from offramp.observation import Observation, Timing
from offramp.options import OptionTable, System
from offramp.policies.base import Context
from offramp.policies.greedy import Myopic
from offramp.policies.planning.plan import Plan, make_plan
from offramp.policies.planning.problem import (
    COARSE_POINTS,
    FINE_POINTS,
    Options,
    candidate_options,
    candidates,
    make_problem,
)
from offramp.policies.planning.seen import SeenTasks
from offramp.policies.planning.traffic import Traffic, scenario_traffic
from offramp.task import DROP, Decision

FIRST_PLAN = 10
"""Tasks that must be seen before a plan is made from them; until then the policy is `myopic`."""
LAST_LESSON = 160
"""Plans are made again from what was seen at twice the count of the last time, up to this count."""
CHECK_EVERY = 16
"""Tasks between two looks at whether the stream still is what the plan was made for."""


class _Candidates(NamedTuple):
    """Options of one size on one device that can be best, and the table of the device's kind."""

    after: FloatArray
    options: Options
    decisions: tuple[Decision, ...]


_BestRow = Callable[[Observation, Plan, _Candidates], int]
"""The row of the candidates that is best for an observation, -1 to drop."""


class Planner:
    """Looks the backlog up that each option leaves, in tables that value iteration made for the traffic.

    The traffic is the scenario's, where that is known, and otherwise estimated from the tasks so far. Either way
    the stream is watched: when it departs from what the plan was made for, the plan is made again from the last
    tasks. That happens between two decisions, or, after `replan_in`, beside them: the old plan serves until the
    new one is there.
    """

    def __init__(self, system: System, timing: Timing, traffic: Traffic | None) -> None:
        self._best_row = _paper_row() if timing == "paper" else _network_row()
        self._system, self._timing = system, timing
        self._executor: Executor | None = None
        self._pending: Future[Plan] | None = None
        self._candidates: dict[tuple[int, int], _Candidates] = {}
        self._seen = SeenTasks(system)
        self._until_look = CHECK_EVERY
        self._until_lesson = 0 if traffic is not None else FIRST_PLAN
        self._myopic = Myopic()
        self._traffic = traffic
        self._plan = None if traffic is None else self._solve(traffic, FINE_POINTS)

    @classmethod
    def create(cls, context: Context) -> Self:
        """Plans for the context's scenario, or waits for tasks. MissingExtraError without numba."""
        traffic = None if context.scenario is None else scenario_traffic(context.scenario)
        return cls(context.system, context.timing, traffic)

    def replan_in(self, executor: Executor) -> None:
        """Make further plans in the executor, so that no decision waits for one. For the runtime's edge."""
        self._executor = executor

    def decide(self, observation: Observation) -> Decision:
        """Best gain plus planned value among what meets the deadline and dropping; `myopic` before any plan."""
        self._watch(observation)
        plan = self._plan
        if plan is None:
            return self._myopic.decide(observation)
        task = observation.task
        found = self._candidates.get((task.device, task.size))
        if found is None:
            found = self._find_candidates(plan, task.device, task.size, observation.options)
        row = self._best_row(observation, plan, found)
        return found.decisions[row] if row >= 0 else DROP

    def _find_candidates(self, plan: Plan, device: int, size: int, options: OptionTable) -> _Candidates:
        rows = candidates(options, self._timing)
        found = _Candidates(
            plan.table(self._system.kind(device)),
            candidate_options([options], self._timing),
            tuple(Decision(int(options.exit[row]), int(options.cut[row])) for row in rows),
        )
        self._candidates[device, size] = found
        return found

    def _watch(self, observation: Observation) -> None:
        """Count the task, take up a plan that has become ready, and start the next one where it is due."""
        self._seen.add(observation.task)
        if self._pending is not None:
            if not self._pending.done():
                return
            self._adopt(self._pending.result())
            self._pending = None
        if self._until_lesson and len(self._seen) >= self._until_lesson:
            self._until_lesson = 2 * len(self._seen) if 2 * len(self._seen) <= LAST_LESSON else 0
            self._plan_again()
            return
        self._until_look -= 1
        if self._until_look > 0 or self._traffic is None:
            return
        self._until_look = CHECK_EVERY
        departed = self._seen.departs_from(self._traffic)
        if departed is not None:
            self._seen.keep_last(departed)
            self._until_lesson = 2 * departed
            self._plan_again()

    def _plan_again(self) -> None:
        traffic = self._seen.traffic()
        if traffic is None:
            return
        self._traffic = traffic
        if self._executor is None:
            self._adopt(self._solve(traffic, COARSE_POINTS))
        else:
            self._pending = self._executor.submit(self._solve, traffic, COARSE_POINTS)

    def _adopt(self, plan: Plan) -> None:
        self._plan = plan
        self._candidates = {}

    def _solve(self, traffic: Traffic, points: int) -> Plan:
        return make_plan(make_problem(self._system, traffic, self._timing, points))


def _paper_row() -> _BestRow:
    from offramp.policies.planning.paper_kernels import best_option

    def row(observation: Observation, plan: Plan, found: _Candidates) -> int:
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
    from offramp.policies.planning.network_kernels import best_option, edge_work

    def row(observation: Observation, plan: Plan, found: _Candidates) -> int:
        task, backlog, now_s = observation.task, observation.backlog, observation.now_s
        return best_option(
            found.after,
            plan.grid,
            plan.terms,
            observation.ready_s - now_s,
            float(backlog.device_free_s[task.device]) - now_s,
            float(backlog.link_free_s[task.device]) - now_s,
            edge_work(now_s, backlog.edge_arrivals_s, backlog.edge_free_s),
            backlog.edge_arrivals_s - now_s,
            backlog.edge_free_s - now_s,
            task.deadline_s - now_s,
            found.options,
            0,
            len(found.decisions),
        )

    return row
