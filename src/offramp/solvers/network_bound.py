"""`network-bound`: what no schedule under the `network` timing model exceeds, and a schedule near it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from offramp.equations import TIME_TOLERANCE_S, FloatArray, IntArray, tail_durations
from offramp.errors import OfframpError
from offramp.instance import Instance
from offramp.options import OptionTable, System
from offramp.schedule import Schedule
from offramp.state import make_state
from offramp.task import DROP, Decision

if TYPE_CHECKING:
    from offramp.solvers.lagrange import Lane

ROUNDS = 60
"""Times that the prices of edge time are changed."""

_LABELS = 256
_MOST_WINDOWS = 20_000
_CLOSE = 1e-9


class NetworkBound:
    """Lagrangian bound: each device and its link exactly, the edge's time as a capacity that has a price.

    Forgotten are the order in which the edge serves, that its work cannot be split, and that a task waits for it.
    Where the edge runs tasks together, each needs the least share that any batch would leave it.
    Late and dropped tasks earn nothing either way, and a schedule without the late ones is no worse for the others.

    Args:
        fastest: durations on device, link and edge, the decision and the answer are taken to be this share of the
            predicted ones, in (0, 1]: give what the quickest of a recorded run's was, and the bound holds for it.
        rounds: >= 1, how often prices are changed.
    """

    def __init__(self, fastest: float = 1.0, rounds: int = ROUNDS) -> None:
        if not 0 < fastest <= 1:
            raise OfframpError("fastest", fastest, "must be in (0, 1]", "1 for the model's own durations")
        if rounds < 1:
            raise OfframpError("rounds", rounds, "must be >= 1", f"{ROUNDS} is the default")
        self._fastest = fastest
        self._rounds = rounds

    def solve(self, instance: Instance) -> Schedule:
        """The best schedule met on the way, laid out under `network`, and the least bound."""
        started = time.perf_counter()
        best = _lay_out(instance, [DROP] * len(instance.tasks))
        bound = float("inf")
        for upper, decisions in self._ascend(instance, best.gain):
            bound = min(bound, upper)
            found = _lay_out(instance, decisions)
            if found.gain > best.gain:
                best = found
            if bound <= best.gain + _CLOSE:
                break
        # Sums of floats in another order differ in their last digits.
        proven = self._fastest == 1 and bound <= best.gain + _CLOSE
        return Schedule(
            best.tasks,
            best.gain,
            best.gain if proven else max(bound, best.gain) + _CLOSE,
            "optimal" if proven else "feasible",
            time.perf_counter() - started,
        )

    def _ascend(self, instance: Instance, floor: float) -> Iterator[tuple[float, list[Decision]]]:
        """A bound for every price, and what the devices would do at it."""
        from offramp.solvers.lagrange import best_lane, price_options, use_windows

        problem = _problem(instance, self._fastest)
        network = instance.system.network
        price = np.zeros(len(problem.capacity_s))
        least = np.inf
        step = 1.0
        for _ in range(self._rounds):
            used_s = np.zeros_like(price)
            upper = float(price @ problem.capacity_s)
            decisions = [DROP] * len(instance.tasks)
            for part in problem.parts:
                net = np.empty(len(part.lane.gain))
                cheapest = np.empty(len(net), dtype=np.int64)
                chosen = np.empty(len(part.index), dtype=np.int64)
                price_options(part.lane, price, net, cheapest)
                upper += best_lane(
                    part.lane,
                    net,
                    self._fastest * network.link_delay_s,
                    self._fastest * network.answer_s,
                    _LABELS,
                    chosen,
                )
                use_windows(part.lane, chosen, price, cheapest, used_s)
                part.decide(chosen, decisions)
            yield upper, decisions
            excess_s = used_s - problem.capacity_s
            slope = np.where((price > 0) | (excess_s > 0), excess_s, 0.0)
            if not slope.any():
                return
            if upper > least:
                step *= 0.8
            least = min(least, upper)
            # Polyak's step towards a value a little below the least bound yet.
            length = step * (upper - 0.99 * least + 1e-12) / float(slope @ slope)
            price = np.maximum(price + length * excess_s, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """One device's tasks: `index` their places in the stream, `choice` what each option decides."""

    lane: Lane
    index: IntArray
    choice: list[Decision]

    def decide(self, chosen: IntArray, decisions: list[Decision]) -> None:
        for number, option in zip(self.index.tolist(), chosen.tolist(), strict=True):
            if option >= 0:
                decisions[number] = self.choice[option]


@dataclass(frozen=True, slots=True, eq=False)
class _Problem:
    """All devices, and the edge's seconds in each window."""

    parts: list[_Part]
    capacity_s: FloatArray


def _problem(instance: Instance, fastest: float) -> _Problem:
    network = instance.system.network
    budget_s = float(np.mean([task.budget_s for task in instance.tasks]))
    begin_s = instance.tasks[0].arrival_s
    span_s = max(task.deadline_s for task in instance.tasks) - begin_s
    window_s = max(budget_s / 2, span_s / _MOST_WINDOWS, 1e-9)
    windows = int(span_s / window_s) + 2
    parts = [
        _part(instance, device, fastest, begin_s, window_s)
        for device in sorted({task.device for task in instance.tasks})
    ]
    return _Problem(parts, np.full(windows, window_s * network.edge_workers))


def _part(instance: Instance, device: int, fastest: float, begin_s: float, window_s: float) -> _Part:
    from offramp.solvers.lagrange import Lane

    network = instance.system.network
    index = np.array([n for n, task in enumerate(instance.tasks) if task.device == device])
    tables: dict[int, tuple[OptionTable, FloatArray, IntArray]] = {}
    picked: list[tuple[OptionTable, FloatArray, IntArray]] = []
    largest = max(task.size for task in instance.tasks)
    opens, closes = [], []
    for task in (instance.tasks[n] for n in index):
        if task.size not in tables:
            table = instance.system.options(device, task.size)
            least_s = _least_work(instance.system, table, task.size, largest)
            tables[task.size] = (table, least_s, _useful(table, least_s))
        table, _, rows = tables[task.size]
        picked.append(tables[task.size])
        ready_s = task.arrival_s + fastest * network.decision_s
        reach_s = ready_s + fastest * (table.head_s[rows] + table.upload_s[rows] + network.link_delay_s)
        due_s = task.deadline_s + TIME_TOLERANCE_S - fastest * network.answer_s
        first = np.floor((reach_s - begin_s) / window_s - 1e-9).astype(np.int64)
        last = np.floor((due_s - begin_s) / window_s + 1e-9)
        idle = table.local[rows] | (table.tail_s[rows] == 0)
        opens.append(np.where(idle, 0, first))
        closes.append(np.where(idle, -1, last.astype(np.int64)))
    lengths = np.array([len(rows) for _, _, rows in picked])
    ends = np.cumsum(lengths)

    def column(name: str) -> FloatArray:
        return np.concatenate([getattr(table, name)[rows] for table, _, rows in picked])

    lane = Lane(
        ready_s=np.array([instance.tasks[n].arrival_s for n in index]) + fastest * network.decision_s,
        deadline_s=np.array([instance.tasks[n].deadline_s for n in index]),
        first=ends - lengths,
        last=ends,
        head_s=fastest * column("head_s"),
        upload_s=fastest * column("upload_s"),
        tail_s=fastest * column("tail_s"),
        work_s=fastest * np.concatenate([least_s[rows] for _, least_s, rows in picked]),
        gain=column("gain"),
        local=column("local").astype(np.bool_),
        opens=np.concatenate(opens),
        closes=np.concatenate(closes),
    )
    return _Part(lane, index, [table.decision(row) for table, _, rows in picked for row in rows])


def _least_work(system: System, table: OptionTable, size: int, largest: int) -> FloatArray:
    """Edge time that each option needs at least, seconds: its share of the batch that saves most.

    A batch of `total` inputs takes T(total), of which a task of `size` inputs has size / total; every batch that it
    may be in has a total between its own size and that with `max_batch` - 1 tasks of the `largest` size.
    """
    if system.network.max_batch == 1:
        return table.tail_s
    totals = np.arange(size, size + (system.network.max_batch - 1) * largest + 1)
    saved_s = np.zeros(len(table))
    for number, exit in enumerate(system.exits, 1):
        tails_s = np.array([tail_durations(exit.layer_s("edge", total)) for total in totals.tolist()])
        share_s = (tails_s * (size / totals)[:, None]).min(axis=0)
        rows = table.exit == number
        saved_s[rows] = (tails_s[0] - share_s)[table.cut[rows]]
    return np.maximum(table.tail_s - saved_s, 0.0)


def _useful(table: OptionTable, work_s: FloatArray) -> IntArray:
    """Rows that no other row of the table beats on device, link and edge and in gain; of equal ones the first."""
    costs = np.stack(
        [
            table.head_s,
            np.where(table.local, 0.0, table.upload_s),
            np.where(table.local, 0.0, table.tail_s),
            np.where(table.local, 0.0, work_s),
            np.where(table.local, 0.0, 1.0),
            -table.gain,
        ],
        axis=1,
    )
    no_worse = (costs[:, None] <= costs[None]).all(axis=2)
    equal = no_worse & no_worse.T
    beats = no_worse & (~equal | np.tri(len(costs), k=-1, dtype=bool).T)
    return np.flatnonzero(~beats.any(axis=0))


def _lay_out(instance: Instance, decisions: list[Decision]) -> Schedule:
    """What comes of decisions under `network`; one that would be late when it is made gives way to the best in time."""
    from offramp.policies.base import choose

    state = make_state(instance.system, "network")
    for task, decision in zip(instance.tasks, decisions, strict=True):
        observation = state.observe(task)
        options = observation.options
        if decision.exit > 0:
            finish_s = observation.timeline().finish_s
            in_time = observation.feasible(finish_s)
            if not in_time[options.row_of(decision)]:
                decision = choose(options, in_time, finish_s)
        state.commit(observation, decision)
    rows = tuple(state.rows())
    return Schedule(rows, sum(row.gain for row in rows), None, "feasible")
