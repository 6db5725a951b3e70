"""A system and a policy as the numbers that the compiled loops take. Importing this module loads numba."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from offramp.equations import FloatArray, tail_durations
from offramp.errors import OfframpError
from offramp.fleet import rules
from offramp.fleet.world import Standing, World
from offramp.observation import Timing
from offramp.options import OptionTable, System, decode_duration
from offramp.policies import POLICIES, Policy
from offramp.policies.chance import Random
from offramp.policies.competitors import Edgent, Neurosurgeon, fastest_row
from offramp.policies.ddqn import Ddqn
from offramp.policies.ddqn_paper import DdqnPaper
from offramp.policies.greedy import DeviceOnly, EdgeOnly, Greedy, Myopic
from offramp.policies.outlook import columns_by_kind, device_kinds
from offramp.policies.planner import Planner
from offramp.policies.planning.problem import Options

_JOBS = 1024
"""Jobs that a stream has room for at first."""
_NEVER = -np.inf


def make_world(system: System, sizes: Sequence[int], budget_s: FloatArray, timing: Timing) -> World:
    """A system with tasks of these sizes and budgets, (sizes,)."""
    table, network = system.options(0, sizes[0]), system.network
    return World(
        *columns_by_kind(system, sizes),
        table.exit.copy(),
        table.cut.copy(),
        table.local.copy(),
        device_kinds(system)[0],
        np.array(sizes, dtype=np.float64),
        budget_s,
        timing == "network",
        network.decision_s,
        network.link_delay_s,
        network.answer_s,
        network.max_batch,
        *_edge_work(system, sizes, table),
    )


def _edge_work(system: System, sizes: Sequence[int], table: OptionTable) -> tuple[FloatArray, FloatArray]:
    """What decoding adds, (sizes, rows), and the tails of tasks that are run together: see `World`."""
    rows = list(zip(table.exit.tolist(), table.cut.tolist(), table.codec.tolist(), strict=True))
    decode_s = [
        [decode_duration(system.exits[exit - 1], cut, codec, size) for exit, cut, codec in rows]
        for size in sizes
    ]
    most = system.network.max_batch * max(sizes) if system.network.max_batch > 1 else 0
    tails_s = np.zeros((len(system.exits), most + 1, max(exit.layers for exit in system.exits) + 1))
    for number, exit in enumerate(system.exits):
        for inputs in range(1, most + 1):
            tails_s[number, inputs, : exit.layers + 1] = tail_durations(exit.layer_s("edge", inputs))
    return np.array(decode_s), tails_s


def make_standing(system: System, timing: Timing) -> Standing:
    """An idle system."""
    workers = 1 if timing == "paper" else system.network.edge_workers
    return Standing(
        np.full(system.devices, _NEVER),
        np.full(system.devices, _NEVER),
        np.full(workers, _NEVER),
        np.zeros((_JOBS, 3)),
        np.zeros((_JOBS, 2), np.int64),
        np.zeros(2, np.int64),
        np.zeros(_JOBS),
        np.zeros(_JOBS + 1),
        np.zeros(1),
    )


def with_more_room(standing: Standing) -> Standing:
    """The same with room for twice as many jobs."""
    jobs = len(standing.job)
    return standing._replace(
        job_s=np.concatenate((standing.job_s, np.zeros((jobs, 3)))),
        job=np.concatenate((standing.job, np.zeros((jobs, 2), np.int64))),
        forecast_arrival_s=np.zeros(2 * jobs),
        forecast_free_s=np.zeros(2 * jobs + 1),
    )


def _tables(system: System, sizes: Sequence[int]) -> list[list[OptionTable]]:
    """Option tables by kind and size."""
    return [[system.options(device, size) for size in sizes] for device in device_kinds(system)[1]]


def _by_table(system: System, sizes: Sequence[int], value: Callable[[OptionTable], Any]) -> Any:
    return np.array([[value(table) for table in kind] for kind in _tables(system, sizes)])


def _greedy(policy: Greedy, system: System, sizes: Sequence[int]) -> rules.Rule:
    return rules.Best(_by_table(system, sizes, lambda table: np.ones(len(table), np.bool_)), queued=False)


def _myopic(policy: Myopic, system: System, sizes: Sequence[int]) -> rules.Rule:
    return rules.Best(_by_table(system, sizes, policy.permitted), queued=True)


def _edgent(policy: Edgent, system: System, sizes: Sequence[int]) -> rules.Rule:
    exits = range(1, len(system.exits) + 1)
    return rules.DeepestAlone(
        _by_table(system, sizes, lambda t: [fastest_row(t, t.exit == exit) for exit in exits])
    )


def _neurosurgeon(policy: Neurosurgeon, system: System, sizes: Sequence[int]) -> rules.Rule:
    return rules.Fixed(_by_table(system, sizes, lambda t: fastest_row(t, t.exit == t.exit[-1])))


def _random(policy: Random, system: System, sizes: Sequence[int]) -> rules.Rule:
    exits = np.arange(1, len(system.exits) + 2)
    return rules.Chance(np.searchsorted(system.options(0, sizes[0]).exit, exits), policy.rng)


def _planner(policy: Planner, system: System, sizes: Sequence[int]) -> rules.Rule:
    plan = policy.plan
    if plan is None:
        return _myopic(Myopic(), system, sizes)
    devices = device_kinds(system)[1]
    found = [
        policy.candidates_of(plan, device, size, system.options(device, size))
        for device in devices
        for size in sizes
    ]
    table = np.array([plan.place(system.kind(device)) for device in devices])
    first = np.concatenate(([0], np.cumsum([len(one.rows) for one in found])))
    row = np.concatenate([one.rows for one in found])
    columns = zip(*(one.options[1:] for one in found), strict=True)
    options = Options(first, *(np.concatenate(column) for column in columns))
    if plan.after.ndim == 3:
        return rules.Planned(plan.after, plan.grid, table, first, row, options)
    return rules.PlannedNetwork(plan.after, plan.grid, plan.terms, table, first, row, options)


def _ddqn(policy: Ddqn, system: System, sizes: Sequence[int]) -> rules.Rule:
    if policy.view is None:
        return _myopic(Myopic(), system, sizes)
    return rules.Learned(policy.view, policy.layers, policy.discount)


def _ddqn_paper(policy: DdqnPaper, system: System, sizes: Sequence[int]) -> rules.Rule:
    if policy.notice is not None:
        return _myopic(Myopic(), system, sizes)
    return rules.LearnedPaper(policy.network, policy.scale)


_RULES: dict[type[Any], Callable[[Any, System, Sequence[int]], rules.Rule]] = {
    Greedy: _greedy,
    Myopic: _myopic,
    DeviceOnly: _myopic,
    EdgeOnly: _myopic,
    Edgent: _edgent,
    Neurosurgeon: _neurosurgeon,
    Random: _random,
    Planner: _planner,
    Ddqn: _ddqn,
    DdqnPaper: _ddqn_paper,
}


def rule_of(policy: Policy, system: System, sizes: Sequence[int]) -> rules.Rule:
    """How a policy decides from now on, about tasks of these sizes; see `check_policy`."""
    return _RULES[type(policy)](policy, system, sizes)


def check_policy(name: str) -> None:
    """Raises OfframpError if there is no policy of that name, or if it has no compiled form."""
    names = [each for each, kind in POLICIES.items() if kind in _RULES]
    if name not in names:
        remedy = "name an instance file for this one" if name in POLICIES else "choose one of these"
        raise OfframpError("policy", name, f"one of {', '.join(names)} where tasks are only counted", remedy)
