"""How much of the distance from `myopic` to the optimum policies close, over the grid of the paper's figures 5 to 7.

    python benchmarks/policy_grid.py [--timing paper] [--policies planner,lookahead,ddqn,ddqn-paper] [--seeds 5]
    python benchmarks/policy_grid.py --k 1,2,3,6 --p 0.3,0.5 --devices 20,1000 --policies planner

Cells: k in 1..8, p in {0.05, 0.1, 0.2, 0.3, 0.5}, N in 1..6 unless others are named, the bundled network. Under
`paper` the distance is to the `exact` solver's gain with a limit on labels, and the table has its bound as well; under
`network` it is to the bound that `network-bound` certifies. Only cells where it exceeds `myopic` by more than 2 %
count towards the closure. With -o BASE the result is written to BASE.json, and a report with the mean gain of every
cell to BASE.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from offramp.envs import bundled_exits
from offramp.experiments.provenance import provenance
from offramp.instance import draw_instance
from offramp.observation import TIMINGS, Timing
from offramp.policies import Context, make_policy
from offramp.scenario import Scenario
from offramp.simulator import simulate
from offramp.solvers.exact import Exact
from offramp.solvers.network_bound import NetworkBound


def run_cell(
    k: float, p: float, devices: int, names: list[str], timing: Timing, seeds: int, labels: int
) -> dict[str, Any]:
    """Mean gain of every policy and of what stands above them in one cell."""
    scenario = Scenario().changed(k=k, p=p, devices=devices)
    instances = [
        draw_instance(scenario, bundled_exits(), np.random.default_rng([seed, 2024])) for seed in range(seeds)
    ]
    row: dict[str, Any] = {"k": k, "p": p, "devices": devices}
    solver = Exact(max_labels=labels) if timing == "paper" else NetworkBound()
    solved = [solver.solve(instance) for instance in instances]
    row["bound"] = float(np.mean([schedule.upper_bound for schedule in solved]))
    row["most"] = (
        float(np.mean([schedule.gain for schedule in solved])) if timing == "paper" else row["bound"]
    )
    for name in ("greedy", "myopic", *names):
        made = (make_policy(name, Context(one.system, timing, scenario)) for one in instances)
        gains = [simulate(one, policy, timing).gain for one, policy in zip(instances, made, strict=True)]
        row[name] = float(np.mean(gains))
    return row


def summary(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Mean and least closure, in how many of the cells that matter the policy is below greedy, and below myopic."""
    closures = [closure(row, name) for row in rows if matters(row)]
    beside_greedy = [row for row in rows if row["most"] > 1.02 * row["greedy"]]
    behind = [1 - row[name] / row["myopic"] for row in rows if row[name] < row["myopic"]]
    return {
        "closure": float(np.mean(closures)),
        "least_closure": float(np.min(closures)),
        "cells": len(closures),
        "cells_beside_greedy": len(beside_greedy),
        "below_greedy": sum(row[name] < row["greedy"] for row in beside_greedy),
        "cells_below_myopic": len(behind),
        "most_below_myopic": max(behind, default=0.0),
    }


def closure(row: dict[str, Any], name: str) -> float:
    """Share of the distance from myopic to what stands above that a policy closes in a cell."""
    return float((row[name] - row["myopic"]) / (row["most"] - row["myopic"]))


def matters(row: dict[str, Any]) -> bool:
    """Whether there is a distance worth closing."""
    return bool(row["most"] > 1.02 * row["myopic"])


def markdown(rows: list[list[str]]) -> str:
    """Rows of cells as a table, the first one its head."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]]) + "\n"


def report(result: dict[str, Any]) -> str:
    """The summary, closures by N, and all cells, in Markdown."""
    rows, names = result["cells"], list(result["summary"])
    heads = list(next(iter(result["summary"].values())))
    summed = [[name, *(f"{value:.4g}" for value in result["summary"][name].values())] for name in names]
    devices = sorted({row["devices"] for row in rows})
    by_devices = [
        [
            name,
            *(
                f"{np.mean([closure(row, name) for row in rows if matters(row) and row['devices'] == n]):.2f}"
                for n in devices
            ),
        ]
        for name in names
    ]
    cells = [
        [f"{value:g}" if place < 3 else f"{value:.1f}" for place, value in enumerate(row.values())]
        for row in rows
    ]
    return "\n".join(
        (
            f"# Policies over the grid, {result['timing']} timing, {result['seeds']} streams a cell\n",
            markdown([["policy", *(head.replace("_", " ") for head in heads)], *summed]),
            "Mean closure by N:\n",
            markdown([["policy", *map(str, devices)], *by_devices]),
            "Mean gains:\n",
            markdown([list(rows[0]), *cells]),
        )
    )


def main() -> None:
    """Run the grid, one line a cell, and print a summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--timing", choices=TIMINGS, default="paper")
    parser.add_argument("--k", default="1,2,3,4,5,6,7,8")
    parser.add_argument("--p", default="0.05,0.1,0.2,0.3,0.5")
    parser.add_argument("--devices", default="1,2,3,4,5,6")
    parser.add_argument("--policies", default="planner,lookahead,ddqn,ddqn-paper")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--labels", type=int, default=64)
    parser.add_argument("-o", "--output", type=Path)
    asked = parser.parse_args()
    names = asked.policies.split(",")
    rows = []
    axes = ([float(value) for value in axis.split(",")] for axis in (asked.k, asked.p, asked.devices))
    for k, p, devices in itertools.product(*axes):
        rows.append(run_cell(k, p, int(devices), names, asked.timing, asked.seeds, asked.labels))
        print(json.dumps({key: round(value, 2) for key, value in rows[-1].items()}), flush=True)
    result = {
        "timing": asked.timing,
        "summary": {name: summary(rows, name) for name in names},
        "seeds": asked.seeds,
        "cells": rows,
        "made_with": provenance(),
    }
    print(json.dumps(result["summary"], indent=1))
    if asked.output is not None:
        asked.output.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
        asked.output.with_suffix(".md").write_text(report(result))


if __name__ == "__main__":
    main()
