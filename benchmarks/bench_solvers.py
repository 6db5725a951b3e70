"""Benchmarks of the offline solvers. Each part writes `results/solvers-PART.json` and, where it times, a picture.

    python benchmarks/bench_solvers.py judges    the counts of the issue: brute force, CP-SAT and the printed listing
    python benchmarks/bench_solvers.py cp-sat    exact against CP-SAT to the same proof, side by side
    python benchmarks/bench_solvers.py listing   serial-dp against the printed listing in Python, M = 10,000
    python benchmarks/bench_solvers.py growth    time against M, p, N and L, and the gap against L
    python benchmarks/bench_solvers.py grid      serial-dp, myopic and exact over k, p and N; resumable

Needs the dev extra. Timings are medians of runs that alternate, on whatever this machine is; compare ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
sys.path.insert(0, str(HERE.parent / "tests" / "solvers"))

import drawn  # noqa: E402
import judges  # noqa: E402

from offramp.cli.arguments import exits_of  # noqa: E402
from offramp.experiments.cells import policy_rng, seeded_instance  # noqa: E402
from offramp.experiments.provenance import provenance  # noqa: E402
from offramp.instance import Instance  # noqa: E402
from offramp.profile import ExitCoefficients  # noqa: E402
from offramp.scenario import Scenario  # noqa: E402
from offramp.schedule import Schedule  # noqa: E402
from offramp.simulator import simulate_named  # noqa: E402
from offramp.solvers import Exact, SerialDp  # noqa: E402
from offramp.validation import write_atomically  # noqa: E402

Exits = tuple[ExitCoefficients, ...]
MICROSECOND_S = 1e-6
POLICIES = ("random", "greedy", "device-only", "edge-only", "myopic")


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def save(part: str, value: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"made_with": provenance(), "cores": os.cpu_count()} | value, indent=1) + "\n"
    write_atomically(RESULTS / f"solvers-{part}.json", text)


def reference(exits: Exits, seed: int, **changes: Any) -> Instance:
    """An instance of the reference scenario with some values changed."""
    return seeded_instance(Scenario().changed(**changes), exits, seed)


def clocked(run: Callable[[], Schedule]) -> tuple[Schedule, float]:
    started = time.perf_counter()
    schedule = run()
    return schedule, time.perf_counter() - started


def snapped(exits: Exits) -> Exits:
    """Coefficients in whole microseconds and bytes, so that an integer program has the same optimum exactly."""
    return tuple(
        ExitCoefficients(
            exit.accuracy,
            np.round(exit.device_s / MICROSECOND_S) * MICROSECOND_S,
            np.round(exit.edge_s / MICROSECOND_S) * MICROSECOND_S,
            np.round(exit.output_bytes),
        )
        for exit in exits
    )


def run_judges(exits: Exits) -> None:
    rng = np.random.default_rng(2024)
    worst = {"brute force": 0.0, "CP-SAT": 0.0, "listing": 0.0, "recomputed": 0.0}

    def compare(judge: str, instance: Instance, schedule: Schedule, gain: float) -> None:
        worst[judge] = max(worst[judge], abs(schedule.gain - gain))
        decisions = [(row.exit, row.cut) for row in schedule.tasks]
        again = judges.recomputed_gain(instance, decisions)
        worst["recomputed"] = max(worst["recomputed"], abs(schedule.gain - again))

    for number in range(500):
        u = int(rng.integers(1, 7))
        layers = 1 if u > 2 else 2
        instance = drawn.build(
            rng, int(rng.integers(1, 7)), int(rng.integers(1, 6)), u, layers, int(rng.integers(21))
        )
        compare("brute force", instance, Exact().solve(instance), judges.brute_force(instance))
        if number % 100 == 99:
            note(f"brute force {number + 1} of 500: {worst}")
    for number in range(60):
        instance = drawn.build(
            rng, int(rng.integers(10, 41)), int(rng.integers(1, 6)), int(rng.integers(1, 7)), 4, 20
        )
        proof = judges.cp_sat(instance, drawn.TICK_S, workers=os.cpu_count() or 1)
        if not proof.optimal:
            raise SystemExit(f"CP-SAT did not finish instance {number}")
        compare(
            "CP-SAT", instance, Exact().solve(instance), judges.recomputed_gain(instance, proof.decisions)
        )
        if number % 10 == 9:
            note(f"CP-SAT {number + 1} of 60: {worst}")
    for _ in range(200):
        instance = drawn.build(
            rng, int(rng.integers(1, 41)), int(rng.integers(1, 6)), int(rng.integers(1, 7)), 4, 20
        )
        schedule = SerialDp(drawn.TICK_S).solve(instance)
        compare("listing", instance, schedule, judges.listing(instance, drawn.TICK_S))
    note(f"greatest differences: {worst}")
    save(
        "judges",
        {"instances": {"brute force": 500, "CP-SAT": 60, "listing": 200}, "greatest_difference": worst},
    )


def run_cp_sat(exits: Exits) -> None:
    exits = snapped(exits)
    rows = []
    for p in (0.1, 0.3):
        for seed in range(3):
            instance = reference(exits, seed, p=p)
            Exact().solve(instance)
            before = [clocked(lambda i=instance: Exact().solve(i))[1] for _ in range(5)]
            proof = judges.cp_sat(instance, MICROSECOND_S, limit_s=120.0, workers=os.cpu_count() or 1)
            after = [clocked(lambda i=instance: Exact().solve(i))[1] for _ in range(5)]
            schedule = Exact().solve(instance)
            exact_s = statistics.median(before + after)
            difference = judges.recomputed_gain(instance, proof.decisions) - schedule.gain
            rows.append(
                {
                    "p": p,
                    "seed": seed,
                    "exact_s": exact_s,
                    "cp_sat_s": proof.seconds,
                    "cp_sat_finished": proof.optimal,
                    "gain_difference": difference,
                    "ratio": proof.seconds / exact_s,
                }
            )
            note(f"{rows[-1]}")
    save(
        "cp-sat", {"workers": os.cpu_count(), "rows": rows, "least_ratio": min(row["ratio"] for row in rows)}
    )
    figure, axes = _axes("exact against CP-SAT, M=100, N=3, k=3", "instance", "seconds")
    axes.semilogy([row["exact_s"] for row in rows], "o", label="exact")
    axes.semilogy([row["cp_sat_s"] for row in rows], "s", label="CP-SAT")
    axes.set_xticks(range(len(rows)), [f"p={row['p']}\nseed {row['seed']}" for row in rows], fontsize=7)
    _finish(figure, axes, "cp-sat")


def run_listing(exits: Exits) -> None:
    tasks = 10_000
    instance = reference(exits, 0, tasks=tasks)
    slot_s = Scenario().slot_s / 10
    solver = SerialDp(slot_s)
    solver.solve(instance)
    before = [clocked(lambda: solver.solve(instance))[1] for _ in range(3)]
    note("the listing takes some minutes")
    started = time.perf_counter()
    gain = judges.listing(instance, slot_s)
    listing_s = time.perf_counter() - started
    after = [clocked(lambda: solver.solve(instance))[1] for _ in range(3)]
    schedule = solver.solve(instance)
    serial_s = statistics.median(before + after)
    value = {
        "tasks": tasks,
        "slot_s": slot_s,
        "serial_dp_s": serial_s,
        "listing_s": listing_s,
        "ratio": listing_s / serial_s,
        "gain_difference": schedule.gain - gain,
    }
    note(f"{value}")
    save("listing", value)
    figure, axes = _axes(f"serial-dp against the listing, M={tasks}, a tenth of a slot", "", "seconds")
    axes.bar(["serial-dp", "listing in Python"], [serial_s, listing_s])
    axes.set_yscale("log")
    _finish(figure, axes, "listing")


def run_growth(exits: Exits) -> None:
    series: dict[str, list[dict[str, float]]] = {"M": [], "p": [], "N": [], "L": []}

    def measure(name: str, at: float, max_labels: int | None, **changes: Any) -> None:
        times, gaps = [], []
        for seed in range(3):
            schedule = Exact(max_labels).solve(reference(exits, seed, **changes))
            times.append(schedule.solve_s)
            gaps.append((schedule.upper_bound or 0.0) / schedule.gain - 1)
        series[name].append({"at": at, "seconds": statistics.median(times), "gap": max(gaps)})
        note(f"{name} = {at}: {series[name][-1]}")

    Exact().solve(reference(exits, 0, p=0.5))
    for tasks in (100, 300, 1000, 3000, 10_000, 30_000):
        measure("M", tasks, None, tasks=tasks)
    for p in (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0):
        measure("p", p, None, p=p)
    for devices in (1, 2, 3, 6, 12):
        measure("N", devices, None, devices=devices, p=0.3)
    for max_labels in (4, 16, 64, 256, 1024):
        measure("L", max_labels, max_labels, tasks=1000, p=0.5, k=6, devices=6)
    save("growth", {"series": series})
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 4, figsize=(14, 3.2))
    titles = {
        "M": "p=0.1, k=3, N=3",
        "p": "M=100, k=3, N=3",
        "N": "M=100, p=0.3, k=3",
        "L": "M=1000, p=0.5, k=6, N=6",
    }
    for axes, (name, rows) in zip(panels, series.items(), strict=True):
        axes.loglog([row["at"] for row in rows], [row["seconds"] for row in rows], "o-")
        axes.set_xlabel(name)
        axes.set_title(titles[name], fontsize=9)
    panels[0].set_ylabel("seconds")
    gaps = panels[3].twinx()
    gaps.plot(
        [row["at"] for row in series["L"]], [100 * row["gap"] for row in series["L"]], "s--", color="tab:red"
    )
    gaps.set_ylabel("gap, %", color="tab:red")
    figure.tight_layout()
    figure.savefig(RESULTS / "solvers-growth.png", dpi=120)


def run_grid(exits: Exits) -> None:
    """One line of JSON for every finished cell; a run goes on where one that was stopped had come to."""
    done, path = RESULTS / "solvers-grid.jsonl", RESULTS / "solvers-grid.jsonl.part"
    RESULTS.mkdir(exist_ok=True)
    lines = path.read_text().splitlines() if path.exists() else []
    cells = {(cell["N"], cell["k"], cell["p"]): cell for cell in map(json.loads, lines)}
    wanted = [(n, k, p) for n in range(1, 7) for k in range(1, 9) for p in (0.05, 0.1, 0.2, 0.3, 0.5)]
    for number, (n, k, p) in enumerate(wanted):
        if (n, k, p) in cells:
            continue
        gains: dict[str, list[float]] = {name: [] for name in ("serial-dp", "exact", *POLICIES)}
        for seed in range(10):
            instance = reference(exits, seed, devices=n, k=k, p=p)
            optimum = Exact().solve(instance)
            gains["exact"].append(optimum.gain)
            gains["serial-dp"].append(SerialDp().solve(instance).gain)
            for policy in POLICIES:
                gains[policy].append(simulate_named(instance, policy, "paper", policy_rng(seed)).gain)
            for name, values in gains.items():
                if values[-1] > optimum.gain + 1e-9:
                    raise SystemExit(f"{name} exceeds the optimum at N={n}, k={k}, p={p}, seed {seed}")
        cells[n, k, p] = {"N": n, "k": k, "p": p} | {name: float(np.mean(v)) for name, v in gains.items()}
        with path.open("a") as handle:
            handle.write(json.dumps(cells[n, k, p]) + "\n")
        if number % 20 == 19:
            note(f"{number + 1} of {len(wanted)} cells")
    path.replace(done)
    probabilities = (0.05, 0.1, 0.2, 0.3, 0.5)
    print("| N | k | " + " | ".join(f"p = {p}" for p in probabilities) + " |")
    print("|---|---|" + "---|" * len(probabilities))
    for n in range(1, 7):
        for k in range(1, 9):
            row = [cells[n, k, p] for p in probabilities]
            texts = [f"{c['serial-dp']:.1f} / {c['myopic']:.1f} / **{c['exact']:.1f}**" for c in row]
            print(f"| {n} | {k} | " + " | ".join(texts) + " |")


def _axes(title: str, x: str, y: str) -> tuple[Any, Any]:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return figure, axes


def _finish(figure: Any, axes: Any, part: str) -> None:
    if axes.get_legend_handles_labels()[1]:
        axes.legend()
    figure.tight_layout()
    figure.savefig(RESULTS / f"solvers-{part}.png", dpi=120)


PARTS = {
    "judges": run_judges,
    "cp-sat": run_cp_sat,
    "listing": run_listing,
    "growth": run_growth,
    "grid": run_grid,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--bundle", type=Path, help="bundle whose profile to use; without it the bundled one")
    arguments = parser.parse_args()
    PARTS[arguments.part](exits_of(arguments.bundle))


if __name__ == "__main__":
    main()
