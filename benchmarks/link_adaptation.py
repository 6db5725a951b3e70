"""Adapting to recorded uplinks against every fixed assumption about them.

    python benchmarks/link_adaptation.py [FOLDER] [--seeds 48] [--tasks 300] [-o FILE]

FOLDER, else OFFRAMP_LINKS, holds uplinks in the Mahimahi format (*.up); without any there is nothing to do.
Each seed is a stream of the reference scenario that begins at another place of the recording; a policy decides it
with its links taken to be this fast or that, with the recording's mean, and with the estimate, which begins with the
scenario's declared rate. `network` timing.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np

from offramp.cli.arguments import exits_of
from offramp.experiments.cells import Cell, run_seed
from offramp.experiments.provenance import provenance
from offramp.experiments.statistics import mean_interval
from offramp.link import load_trace
from offramp.linked_state import Replay
from offramp.scenario import Scenario
from offramp.validation import write_atomically

FIXED_KBIT = (62.5, 125, 250, 500, 1000, 2000, 4000, 8000)
POLICIES = ("planner", "myopic")
RATES = (0.1, 0.3)
RESULT = Path(__file__).parent / "results" / "link-adaptation.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    named = os.environ.get("OFFRAMP_LINKS")
    parser.add_argument("folder", type=Path, nargs="?", default=None if named is None else Path(named))
    parser.add_argument("--seeds", type=int, default=48)
    parser.add_argument("--tasks", type=int, default=300)
    parser.add_argument("-o", "--output", type=Path, default=RESULT)
    args = parser.parse_args()
    if args.folder is None:
        print("no recorded uplinks: name their folder, or set OFFRAMP_LINKS")
        return
    exits = exits_of(None)
    rows = []
    for policy in POLICIES:
        for p in RATES:
            scenario = Scenario(tasks=args.tasks).changed(p=p)
            for path in sorted(args.folder.glob("*.up")):
                recording = load_trace(path, 0.0, 0.0)
                mean = recording.bandwidth_bytes_per_s
                assumed = {f"{kbit:g} kbit/s": kbit * 125.0 for kbit in FIXED_KBIT} | {"mean": mean}
                gains = {}
                for name, rate in {**assumed, "estimate": None}.items():
                    cell = Cell(scenario, policy, "network", (), Replay(recording, 0.0, rate))
                    outcomes = [run_seed(cell, exits, seed) for seed in range(args.seeds)]
                    gains[name] = [100.0 * outcome.gain / args.tasks for outcome in outcomes]
                rows.append(row(policy, p, path.name, mean, gains))
                print(summary(rows[-1]), flush=True)
    value = {
        "format": "offramp.link-adaptation/1",
        "made_with": provenance(),
        "seeds": args.seeds,
        "tasks": args.tasks,
        "unit": "gain of 100 tasks",
        "rows": rows,
        "over_mean": {policy: over_mean(rows, policy) for policy in POLICIES},
    }
    write_atomically(args.output, json.dumps(value, indent=1, allow_nan=False) + "\n")
    for policy, shares in value["over_mean"].items():
        print(f"{policy}: {shares:+.1%} over the assumed mean, on average")


def row(policy: str, p: float, trace: str, mean: float, gains: dict[str, list[float]]) -> dict:
    """One policy on one recording: mean gain and its interval for each assumption."""
    fixed = {name: float(np.mean(values)) for name, values in gains.items() if name != "estimate"}
    best = max(fixed, key=lambda name: fixed[name])
    ahead = np.array(gains["estimate"]) - np.array(gains[best])
    return {
        "policy": policy,
        "p": p,
        "trace": trace,
        "mean_kbit": mean * 0.008,
        "gain": {name: mean_interval(values)._asdict() for name, values in gains.items()},
        "best_fixed": best,
        "ahead_of_best_fixed": mean_interval(ahead.tolist())._asdict(),
    }


def summary(found: dict) -> str:
    gain = {name: interval["mean"] for name, interval in found["gain"].items()}
    ahead = found["ahead_of_best_fixed"]
    return (
        f"{found['policy']} p={found['p']} {found['trace']}: estimate {gain['estimate']:.2f}, mean {gain['mean']:.2f}, "
        f"best fixed {found['best_fixed']} {gain[found['best_fixed']]:.2f}, "
        f"ahead {ahead['mean']:+.2f} ± {ahead['half_width']:.2f}"
    )


def over_mean(rows: list[dict], policy: str) -> float:
    """How much more the estimate earns than the mean assumed, as an average share over recordings and rates."""
    own = [found["gain"] for found in rows if found["policy"] == policy]
    return float(np.mean([gain["estimate"]["mean"] / gain["mean"]["mean"] - 1.0 for gain in own]))


if __name__ == "__main__":
    main()
