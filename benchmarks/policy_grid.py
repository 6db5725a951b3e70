"""How much of the distance from `myopic` to the optimum policies close, over the grid of the paper's figures 5 to 7.

    python benchmarks/policy_grid.py [--policies ddqn,ddqn-paper] [--seeds 5] [--labels 600] [-o result.json]

Cells: k in 1..8, p in {0.05, 0.1, 0.2, 0.3, 0.5}, N in 1..6, `paper` timing, the bundled network. The optimum is the
`exact` solver's schedule with a limit on labels; where its bound does not meet it, closures are against the gain, and
the table gives the bound as well. Only cells where it exceeds `myopic` by more than 2 % count towards the closure.
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
from offramp.policies import Context, make_policy
from offramp.scenario import Scenario
from offramp.simulator import simulate
from offramp.solvers.exact import Exact

GRID = tuple(itertools.product(range(1, 9), (0.05, 0.1, 0.2, 0.3, 0.5), range(1, 7)))


def run_cell(k: int, p: float, devices: int, names: list[str], seeds: int, labels: int) -> dict[str, Any]:
    """Mean gain of every policy and of the optimum in one cell."""
    scenario = Scenario().changed(k=k, p=p, devices=devices)
    instances = [
        draw_instance(scenario, bundled_exits(), np.random.default_rng([seed, 2024])) for seed in range(seeds)
    ]
    solved = [Exact(max_labels=labels).solve(instance) for instance in instances]
    row: dict[str, Any] = {
        "k": k,
        "p": p,
        "devices": devices,
        "exact": float(np.mean([schedule.gain for schedule in solved])),
        "bound": float(np.mean([schedule.upper_bound for schedule in solved])),
    }
    for name in ("greedy", "myopic", *names):
        made = (make_policy(name, Context(instance.system, scenario=scenario)) for instance in instances)
        gains = [simulate(instance, policy).gain for instance, policy in zip(instances, made, strict=True)]
        row[name] = float(np.mean(gains))
    return row


def summary(rows: list[dict[str, Any]], name: str) -> dict[str, float | int]:
    """Mean and least closure, and in how many of the cells that matter the policy stays below greedy."""
    counted = [row for row in rows if row["exact"] > 1.02 * row["myopic"]]
    closures = [(row[name] - row["myopic"]) / (row["exact"] - row["myopic"]) for row in counted]
    beside_greedy = [row for row in rows if row["exact"] > 1.02 * row["greedy"]]
    return {
        "closure": float(np.mean(closures)),
        "least_closure": float(np.min(closures)),
        "cells": len(counted),
        "cells_beside_greedy": len(beside_greedy),
        "below_greedy": sum(row[name] < row["greedy"] for row in beside_greedy),
    }


def main() -> None:
    """Run the grid, one line a cell, and print a summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policies", default="ddqn,ddqn-paper")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--labels", type=int, default=600)
    parser.add_argument("-o", "--output", type=Path)
    asked = parser.parse_args()
    names = asked.policies.split(",")
    rows = []
    for k, p, devices in GRID:
        rows.append(run_cell(k, p, devices, names, asked.seeds, asked.labels))
        print(json.dumps({key: round(value, 2) for key, value in rows[-1].items()}), flush=True)
    result = {
        "summary": {name: summary(rows, name) for name in names},
        "seeds": asked.seeds,
        "cells": rows,
        "made_with": provenance(),
    }
    print(json.dumps(result["summary"], indent=1))
    if asked.output is not None:
        asked.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
