"""What workers and batches bring an edge that is asked for more than it can do: tasks on time, simulated and run.

    python benchmarks/edge_overload.py [--exits 1,4] [--size 2] [--overload 2.5] [--rounds 4] [--seconds 3] [-o FILE]

One exit of the bundled network at a time, Poisson arrivals at `overload` times what one worker does by its profile, and
budgets of 12 times one task's work. `edge-only` decides: what cannot be on time is turned away. The simulation is the
`network` timing model with the profile's coefficients on this edge; the run is `offramp edge`, and programs on the same
machine that send tasks through its `--client-port` whatever becomes of the ones before. Exit 1 is only simulated: one
process cannot send as much as that is. Rounds go through the settings in turn; ratios are of one round, over one worker
without batches, and their median is given.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import numpy as np
from plant.processes import end_in_order
from serving.exits import extract, numbers
from serving.offered import offered, simulated
from serving.servers import running

from offramp.experiments.provenance import provenance
from offramp.model.bundle import load_bundle
from offramp.options import cut_costs
from offramp.runtime.edge_main import load_executor
from offramp.runtime.processor import calibrate
from offramp.task import Task
from offramp.validation import write_atomically

RESULT = Path(__file__).parent / "results" / "edge-overload.json"
SETTINGS = ((1, 1), (1, 8), (2, 1), (2, 8))
"""Workers and tasks a batch."""
BUDGET = 12.0
CLIENTS = 8
MOST_PER_S = 2500
"""Tasks that one process of clients can send."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--exits", type=numbers, default=(1, 4))
    parser.add_argument("--size", type=int, default=2)
    parser.add_argument("--overload", type=float, default=2.5)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("-o", "--output", type=Path, default=RESULT)
    args = parser.parse_args()
    rows: list[dict] = []
    with tempfile.TemporaryDirectory() as folder:
        for exit in args.exits:
            served = extract(exit, Path(folder))
            bundle = load_bundle(served.bundle)
            (coefficients,) = bundle.coefficients(())
            factor = calibrate(load_executor(bundle), (coefficients,))
            here = coefficients.with_edge_factor(factor)
            tail_s = float(cut_costs(here, args.size).tail_s[0])
            for number in range(args.rounds):
                tasks = arrivals(args.overload / tail_s, BUDGET * tail_s, args.seconds, args.size, number)
                for workers, batch in SETTINGS[number % 4 :] + SETTINGS[: number % 4]:
                    row = {"exit": exit, "round": number, "workers": workers, "max_batch": batch}
                    row["tasks"] = len(tasks)
                    row["simulated"] = simulated((here,), tasks, workers, batch)
                    if len(tasks) < MOST_PER_S * args.seconds:
                        with running("offramp", served, workers, batch) as server:
                            row["run"] = offered(served, server.port, tasks)
                    rows.append(row)
                    print(json.dumps(row), flush=True)
    value = {
        "format": "offramp.edge-overload/1",
        "made_with": provenance(),
        "overload": args.overload,
        "budget": BUDGET,
        "size": args.size,
        "seconds": args.seconds,
        "rows": rows,
        "ratios": ratios(rows),
    }
    write_atomically(args.output, json.dumps(value, indent=1, allow_nan=False) + "\n")
    write_atomically(args.output.with_suffix(".md"), table(value))
    print(table(value))


def arrivals(rate: float, budget_s: float, lasting_s: float, size: int, seed: int) -> list[Task]:
    """Poisson arrivals at a rate, from clients in turn."""
    gaps_s = np.random.default_rng(seed).exponential(1.0 / rate, int(rate * lasting_s))
    return [
        Task(float(instant_s), size, budget_s, number % CLIENTS)
        for number, instant_s in enumerate(np.cumsum(gaps_s))
    ]


def ratios(rows: list[dict]) -> list[dict]:
    """Tasks on time over those of one worker without batches in the same round; medians of the rounds."""
    found = []
    for exit in sorted({row["exit"] for row in rows}):
        for workers, batch in SETTINGS[1:]:
            own = {"exit": exit, "workers": workers, "max_batch": batch}
            for how in ("simulated", "run"):
                shares = []
                for row in rows:
                    if (row["exit"], row["workers"], row["max_batch"]) != (exit, workers, batch):
                        continue
                    (alone,) = (
                        r
                        for r in rows
                        if (r["exit"], r["round"], r["workers"], r["max_batch"]) == (exit, row["round"], 1, 1)
                    )
                    if how in row:
                        shares.append(row[how] / max(alone[how], 1))
                own[how] = statistics.median(shares) if shares else None
            found.append(own)
    return found


def table(value: dict) -> str:
    """Medians and ratios as Markdown."""
    lines = [
        "| exit | workers | tasks a batch | on time of all, simulated | run | over 1 worker, simulated | run |",
        "|---|---|---|---|---|---|---|",
    ]
    for exit in sorted({row["exit"] for row in value["rows"]}):
        for workers, batch in SETTINGS:
            own = [
                row
                for row in value["rows"]
                if (row["exit"], row["workers"], row["max_batch"]) == (exit, workers, batch)
            ]
            ratio = [
                r
                for r in value["ratios"]
                if (r["exit"], r["workers"], r["max_batch"]) == (exit, workers, batch)
            ]
            shown = []
            for how in ("simulated", "run"):
                shares = [row[how] / row["tasks"] for row in own if how in row]
                shown.append(f"{statistics.median(shares):.3f}" if shares else "–")
            for how in ("simulated", "run"):
                found = ratio[0][how] if ratio else 1.0
                shown.append("–" if found is None else f"{found:.2f}")
            lines.append(f"| {exit} | {workers} | {batch} | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    end_in_order()
    main()
