"""`lookahead`: plays a few sampled futures through for every candidate, and takes the one that earns most."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from typing import Self

import numpy as np

from offramp import equations
from offramp.equations import FloatArray, IntArray
from offramp.observation import Observation, Timing
from offramp.policies.base import Context
from offramp.policies.greedy import Myopic
from offramp.policies.planning.futures import busy_prices, draw_futures
from offramp.policies.planning.problem import INDIFFERENT, Terms, candidates
from offramp.policies.planning.traffic import Traffic, scenario_traffic
from offramp.policies.planning.watch import TrafficWatch, idle_observation
from offramp.scenario import Scenario
from offramp.task import DROP, Decision

FUTURES = 32
"""Futures that a decision looks at, unless it has so many candidates that `WORK` says fewer."""
LEAST_FUTURES = 8
"""Futures that are played between two looks at the clock, and at the least."""
WORK = 320
"""Candidates × futures of a decision: what keeps its time bounded wherever it runs."""
LIVE_LIMIT_S = 0.003
"""Seconds that a live decision may last before it makes do with the futures it has played."""
POOL = 128
LABELS = 2
NEAR: dict[Timing, float] = {"paper": 0.02, "network": INDIFFERENT}
"""Value that is given up, among options of the same gain, for an earlier finish: so little is mostly luck."""
MARGIN = 0.03
"""Value by which an option must beat the task's own best before samples are trusted to say so."""
_LAST_S = 1e9


class Lookahead:
    """Every candidate meets the same futures, so that they differ by what they leave behind and not by luck.

    Futures are drawn once from the traffic (the scenario's, or estimated from the tasks so far; `myopic` until
    there is an estimate) and used in turn. How many a decision takes follows from its candidates alone, so results
    repeat; `go_live` also stops at a clock, for the runtime.
    """

    varies = "it meets other futures"

    def __init__(self, context: Context, traffic: Traffic | None) -> None:
        from offramp.policies.planning import future_kernels, network_kernels

        self._candidate_values = future_kernels.candidate_values
        self._edge_work = network_kernels.edge_work
        self._system, self._timing, self._rng = context.system, context.timing, context.rng
        network = context.system.network
        self._terms = Terms(
            network.decision_s, network.link_delay_s, network.answer_s, float(network.edge_workers)
        )
        self._clock: Callable[[], float] | None = None
        self._rows: dict[tuple[int, int], IntArray] = {}
        self._next = 0
        self._myopic = Myopic()
        self._watch = TrafficWatch(context.system, traffic, adapt=context.adapt)
        # What an unknown stream might be serves to have the kernel compiled before there is a decision to make.
        self._look_into(traffic or scenario_traffic(Scenario(devices=context.system.devices)))
        self._play(
            idle_observation(context.system, context.timing, size=1, budget_s=1.0), np.zeros((1, 3)), 1
        )
        self._ready = traffic is not None

    @classmethod
    def create(cls, context: Context) -> Self:
        """Draws futures of the context's scenario, or waits for tasks. MissingExtraError without numba."""
        return cls(context, None if context.scenario is None else scenario_traffic(context.scenario))

    def go_live(self, executor: Executor, clock: Callable[[], float]) -> None:
        """Take up no more futures once a decision has lasted `LIVE_LIMIT_S` of the clock. Needs no executor."""
        self._clock = clock

    def decide(self, observation: Observation) -> Decision:
        """Best expected gain plus mean gain of the futures among what meets the deadline and dropping."""
        began_s = self._clock() if self._clock is not None else 0.0
        self._watch.add(observation.task)
        news = self._watch.news()
        if news is not None:
            self._look_into(news)
            self._ready = True
        if not self._ready:
            return self._myopic.decide(observation)
        options = observation.options
        rows, finish_s, after_s = self._candidates(observation)
        if len(rows) == 0:
            return DROP
        futures = min(FUTURES, max(LEAST_FUTURES, WORK // len(after_s)))
        total = np.zeros(len(after_s))
        played = 0
        while played < futures:
            step = min(LEAST_FUTURES, futures - played)
            total += step * self._play(observation, after_s, step)
            played += step
            if self._clock is not None and self._clock() - began_s >= LIVE_LIMIT_S:
                break
        gain = np.append(0.0, observation.expected_gain[rows])
        value = gain + total / played
        best = int(np.argmax(value))
        if value[best] - value[gain == gain.max()].max() < MARGIN:
            best = int(np.argmax(np.where(gain == gain.max(), value, -np.inf)))
        near = (gain == gain[best]) & (value >= value[best] - NEAR[self._timing])
        best = int(np.argmin(np.where(near, finish_s, np.inf)))
        if best == 0:
            return DROP
        row = rows[best - 1]
        return options.decision(row)

    def _look_into(self, traffic: Traffic) -> None:
        self._futures, self._options = draw_futures(self._system, traffic, self._timing, POOL, self._rng)
        self._prices = busy_prices(self._system, traffic, self._timing)

    def _candidates(self, observation: Observation) -> tuple[IntArray, FloatArray, FloatArray]:
        """Rows (C,) that meet the deadline; finishes (C + 1,) and when device, link and edge are free (C + 1, 3).

        The first of the last two is the task dropped; that counts as finishing last.
        """
        task, options, now_s = observation.task, observation.options, observation.now_s
        rows = self._rows.get((task.device, task.size))
        if rows is None:
            rows = self._rows[task.device, task.size] = candidates(options, self._timing)
        line = observation.timeline()
        rows = rows[observation.feasible(line.finish_s[rows])]
        finish_s = np.append(_LAST_S, line.finish_s[rows] - now_s)
        backlog, network = observation.backlog, observation.network
        after_s = np.empty((len(rows) + 1, 3))
        after_s[0, 0] = backlog.device_free_s[task.device] - now_s
        after_s[0, 1] = backlog.link_free_s[task.device] - now_s
        after_s[1:, 0] = line.send_s[rows] - now_s
        after_s[1:, 1] = after_s[0, 1]
        if self._timing == "paper":
            after_s[0, 2] = backlog.edge_free_s[-1] - now_s
            after_s[1:, 2] = line.finish_s[rows] - now_s
            return rows, finish_s, after_s
        _, _, sent_s, _ = equations.network_arrival(
            observation.ready_s,
            backlog.device_free_s[task.device],
            backlog.link_free_s[task.device],
            network.link_delay_s,
            options.head_s[rows],
            options.upload_s[rows],
        )
        sent = ~options.local[rows]
        work_s = self._edge_work(now_s, backlog.edge_arrivals_s, backlog.edge_free_s)
        after_s[1:, 1] = np.where(sent, sent_s - now_s, after_s[0, 1])
        after_s[:, 2] = work_s
        after_s[1:, 2] += np.where(sent, options.tail_s[rows], 0.0) / network.edge_workers
        return rows, finish_s, after_s

    def _play(self, observation: Observation, after_s: FloatArray, count: int) -> FloatArray:
        """Mean gain of the next `count` futures after each candidate."""
        backlog, now_s = observation.backlog, observation.now_s
        values: FloatArray = self._candidate_values(
            self._timing == "paper",
            self._terms,
            self._options,
            self._futures,
            self._next,
            count,
            self._prices,
            LABELS,
            observation.task.device,
            backlog.device_free_s - now_s,
            backlog.link_free_s - now_s,
            after_s,
        )
        self._next = (self._next + count) % POOL
        return values
