"""Twelve recorded runs, each against its rehearsal: on-time share and finish times.

    python benchmarks/run_against_model.py [--tasks 150] [-o FILE]

Each run is `offramp demo` with real processes; what it says is as noisy as the machine is.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from offramp.experiments.provenance import provenance
from offramp.runtime.replay import load_run, replay
from offramp.scenario import Scenario
from offramp.validation import write_atomically

# (p, k, devices, bytes per second, policy)
RUNS = (
    (0.1, 3, 3, 125_000, "planner"),
    (0.1, 3, 3, 125_000, "myopic"),
    (0.2, 3, 3, 125_000, "greedy"),
    (0.2, 6, 3, 125_000, "myopic"),
    (0.3, 3, 3, 125_000, "planner"),
    (0.3, 3, 2, 125_000, "myopic"),
    (0.3, 3, 1, 1_250_000, "planner"),
    (0.1, 4, 4, 500_000, "ddqn"),
    (0.2, 3, 2, 1_250_000, "myopic"),
    (0.4, 6, 2, 250_000, "planner"),
    (0.3, 5, 2, 62_500, "ddqn"),
    (0.1, 2, 3, 250_000, "lookahead"),
)
RESULT = Path(__file__).parent / "results" / "run-against-model.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tasks", type=int, default=150)
    parser.add_argument("-o", "--output", type=Path, default=RESULT)
    args = parser.parse_args()
    rows = []
    for number, run in enumerate(RUNS):
        rows.append(row(run, args.tasks, number))
        print(line(rows[-1]), flush=True)
    value = {
        "format": "offramp.run-against-model/1",
        "made_with": provenance(),
        "tasks": args.tasks,
        "cores": os.cpu_count(),
        "rows": rows,
    }
    write_atomically(args.output, json.dumps(value, indent=1, allow_nan=False) + "\n")


def row(run: tuple[float, float, int, float, str], tasks: int, seed: int) -> dict[str, Any]:
    p, k, devices, rate, policy = run
    scenario = Scenario(tasks=tasks, bandwidth_bytes_per_s=rate).changed(p=p, k=k, devices=devices)
    with tempfile.TemporaryDirectory() as folder:
        told, recorded = Path(folder) / "scenario.json", Path(folder) / "run.json"
        told.write_text(scenario.model_dump_json(), encoding="utf-8")
        command = [sys.executable, "-m", "offramp", "demo", "--scenario", str(told), "--policy", policy]
        command += [
            "--tasks",
            str(tasks),
            "--seed",
            str(seed),
            "-o",
            folder,
            "--record",
            str(recorded),
            "--json",
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        report = replay(load_run(recorded))
    del report["tasks"]
    return {"p": p, "k": k, "devices": devices, "bytes_per_s": rate, **report}


def line(found: dict[str, Any]) -> str:
    error, declared = found["finish_error"], found["declared"]
    return (
        f"| {found['p']} | {found['k']} | {found['devices']} | {found['bytes_per_s'] * 0.008:.0f} | {found['policy']} "
        f"| {found['on_time_share']:.1%} | {found['same_decisions_on_time_share']:.1%} "
        f"| {found['simulated_on_time_share']:.1%} | {error['median']:.1%} | {error['p95']:.1%} "
        f"| {declared['finish_error']['median']:.1%} |"
    )


if __name__ == "__main__":
    main()
