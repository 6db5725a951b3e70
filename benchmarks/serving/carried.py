"""How many tasks a second a real edge carries here, with workers and batches; see `benchmarks/capacity.py`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import numpy as np
from plant.processes import processor_s

from offramp.instance import draw_tasks
from offramp.model.bundle import load_bundle
from offramp.options import cut_costs
from offramp.profile import ExitCoefficients
from offramp.runtime.edge_main import load_executor
from offramp.runtime.processor import calibrate
from offramp.scenario import Scenario
from offramp.streams import ListedSizes, NormalSizes, Poisson, Sizes
from offramp.task import Task
from serving.exits import Served, whole
from serving.offered import offered, simulated
from serving.servers import Running, running

SHARE = 0.95
"""Share of the tasks that must be on time for a load to count as carried."""
SETTINGS = ((1, 1), (1, 8), (2, 1), (2, 8))
"""Workers and tasks a batch."""
KINDS: dict[str, Sizes] = {"1 to 10 images": NormalSizes(), "1 image": ListedSizes(values=(1,))}
LOADS = 5
RANGE = (0.1, 4.0)
"""Where the load is looked for, in times what the workers do by the profile if every task goes to the last exit."""
MOST_PER_S = 2000.0
"""Tasks that one process of clients can send."""
CONNECTIONS = 64
Share = Callable[[float], float]


def carried(lasting_s: float) -> list[dict[str, Any]]:
    """Each setting: the greatest load that is carried, simulated and run, with every load that was tried."""
    served, bundle = whole(), load_bundle(None)
    coefficients = bundle.coefficients(())
    factor = calibrate(load_executor(bundle), coefficients)
    here = tuple(exit.with_edge_factor(factor) for exit in coefficients)
    rows = []
    for kind, sizes in KINDS.items():
        drawn = arrivals(sizes, 100.0, 20.0)
        mean_s = float(np.mean([cut_costs(here[-1], task.size).tail_s[0] for task in drawn]))
        for workers, batch in SETTINGS:
            full = workers / mean_s
            tried: list[dict[str, float]] = []
            with running("offramp", served, workers, batch) as server:
                found = greatest(real(served, server, sizes, lasting_s, tried), full)
            expected = greatest(model(here, sizes, lasting_s, workers, batch), full)
            rows.append(
                {
                    "kind": kind,
                    "workers": workers,
                    "max_batch": batch,
                    "share": SHARE,
                    "by_profile_per_s": full,
                }
            )
            rows[-1] |= {"run_per_s": found, "simulated_per_s": expected, "tried": tried}
            print({name: value for name, value in rows[-1].items() if name != "tried"}, file=sys.stderr)
    return rows


def real(
    served: Served, server: Running, sizes: Sizes, lasting_s: float, tried: list[dict[str, float]]
) -> Share:
    """The share on time of a running edge; every load is noted, with the processors that the edge kept busy."""

    def share(rate: float) -> float:
        tasks = arrivals(sizes, rate, lasting_s)
        began_s, before_s = time.perf_counter(), processor_s(server.pid)
        found = offered(served, server.port, tasks) / len(tasks)
        busy = (processor_s(server.pid) - before_s) / (time.perf_counter() - began_s)
        tried.append({"tasks_per_s": rate, "on_time_share": found, "processors": busy})
        return found

    return share


def model(
    exits: Sequence[ExitCoefficients], sizes: Sizes, lasting_s: float, workers: int, batch: int
) -> Share:
    """The share on time by the `network` timing model, of the same tasks."""

    def share(rate: float) -> float:
        tasks = arrivals(sizes, rate, lasting_s)
        return simulated(exits, tasks, workers, batch) / len(tasks)

    return share


def arrivals(sizes: Sizes, rate: float, lasting_s: float) -> list[Task]:
    """Poisson arrivals with the reference scenario's budgets."""
    scenario = Scenario(arrivals=Poisson(rate_per_s=rate), sizes=sizes, devices=CONNECTIONS)
    return list(islice(draw_tasks(scenario, np.random.default_rng(0)), max(1, int(rate * lasting_s))))


def greatest(share: Share, full: float) -> float:
    """The greatest load that is carried, by bisection of its logarithm; 0 if none of those that are tried is."""
    low, high = (float(np.log(min(part * full, MOST_PER_S))) for part in RANGE)
    carried_per_s = 0.0
    for _ in range(LOADS):
        middle = (low + high) / 2
        rate = float(np.exp(middle))
        if share(rate) >= SHARE:
            low = middle
            carried_per_s = rate
        else:
            high = middle
    return carried_per_s


def table(rows: Sequence[dict[str, Any]]) -> str:
    """What is carried as Markdown, with the processor time that the edge spent on a task at that load."""
    lines = [
        "| tasks | workers | tasks a batch | carried, tasks/s | by the timing model "
        "| edge's processor time a task there, ms |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        there = [tried for tried in row["tried"] if tried["tasks_per_s"] == row["run_per_s"]]
        spent = f"{1000 * there[0]['processors'] / there[0]['tasks_per_s']:.1f}" if there else "–"
        found = f"{row['run_per_s']:.0f}" if there else "none of those tried"
        said = (row["kind"], row["workers"], row["max_batch"], found, f"{row['simulated_per_s']:.0f}", spent)
        lines.append(f"| {' | '.join(map(str, said))} |")
    return "\n".join(lines) + "\n"
