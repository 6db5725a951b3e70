"""How many devices an edge serves, and what it costs to simulate more than one machine holds: docs/capacity.md.

    python benchmarks/capacity.py [--parts simulated,fleet,cost,measured] [--seconds 2.5] [-o FILE]

`measured` looks for the load that a real edge carries on this machine, by real clients over sockets, with one and two
workers and with batches, beside what the timing model says of the same tasks; some three minutes. `simulated` finds the
load up to which tasks are on time, `fleet` is 10,000 devices on 100 edges, and `cost` is time and memory over tasks,
devices and processes. Each part replaces its own section of the result.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from plant.processes import end_in_order
from serving.carried import carried, table

from offramp.envs import bundled_exits
from offramp.experiments.engine import InlineEngine, LocalEngine
from offramp.experiments.fleet import Fleet, run_fleet
from offramp.experiments.provenance import provenance
from offramp.options import NetworkTerms
from offramp.scenario import Scenario
from offramp.streams import Poisson
from offramp.validation import write_atomically

RESULT = Path(__file__).parent / "results" / "capacity.json"
LINKS = {"1 Mbit/s": 125_000.0, "10 Mbit/s": 1_250_000.0, "100 Mbit/s": 12_500_000.0}
SHARE = 0.99
"""Share of the tasks that must be on time for a load to count as served."""


def scenario(
    devices: int, rate_per_s: float, bandwidth: float, workers: int = 1, tasks: int = 0, batch: int = 1
) -> Scenario:
    """Devices whose tasks arrive independently, `rate_per_s` at each edge together."""
    return Scenario(
        devices=devices,
        tasks=tasks or max(20_000, int(100 * rate_per_s)),
        arrivals=Poisson(rate_per_s=rate_per_s),
        bandwidth_bytes_per_s=bandwidth,
        network=NetworkTerms(edge_workers=workers, max_batch=batch),
    )


def summary(
    drawn: Scenario, policy: str, edges: int = 1, jobs: int = 1, seed: int = 0, timing: Any = "network"
) -> dict[str, Any]:
    """The sums of a fleet, whose planners keep to the scenario."""
    engine = InlineEngine() if jobs == 1 else LocalEngine(jobs)
    fleet = Fleet(drawn, edges, policy, timing, seed, adapt=False)
    *_, (_, result) = run_fleet(fleet, bundled_exits(), engine)
    assert result is not None
    return result[0].to_dict()


def most_served(served: Callable[[float], bool]) -> float:
    """The greatest load that is served, within 3 %, by doubling and bisection, in tasks a second; 0 if 1 is not."""
    low, high = 0.0, 1.0
    if not served(high):
        return low
    while served(high) and high < 1e5:
        low, high = high, 2 * high
    while high - low > 0.03 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if served(middle) else (low, middle)
    return low


def simulated() -> list[dict[str, Any]]:
    """The load that an edge serves: devices of one task a second, so that no device has many at a time."""
    rows = []
    for policy in ("edge-only", "myopic", "planner"):
        for link, bandwidth in LINKS.items():
            edges = [(workers, 1) for workers in ((1, 2, 4, 8) if policy != "planner" else (1, 4))]
            for workers, batch in [*edges, (1, 8)]:

                def drawn(rate: float, b: float = bandwidth, w: int = workers, n: int = batch) -> Scenario:
                    return scenario(max(1, round(rate)), rate, b, w, batch=n)

                def served(rate: float, p: str = policy, of: Callable[[float], Scenario] = drawn) -> bool:
                    return bool(summary(of(rate), p)["on_time_share"] >= SHARE)

                rate = most_served(served)
                at = summary(drawn(rate), policy) if rate else {}
                rows.append(
                    {
                        "policy": policy,
                        "link": link,
                        "workers": workers,
                        "max_batch": batch,
                        "tasks_per_s": rate,
                        "tasks_per_s_and_worker": rate / workers,
                        "edge_load": at.get("edge_load"),
                        "mean_gain": at.get("mean_gain"),
                        "accuracy": at.get("accuracy"),
                    }
                )
                print(rows[-1], flush=True)
    return rows


def fleet() -> list[dict[str, Any]]:
    """10,000 devices on 100 edges, 10^6 tasks, at rising rates of each device."""
    rows = []
    for policy in ("myopic", "planner"):
        for rate in (0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0):
            drawn = scenario(10_000, 100 * rate, LINKS["10 Mbit/s"], tasks=1_000_000)
            found = summary(drawn, policy, edges=100, jobs=os.cpu_count() or 1)
            kept = ("on_time_share", "mean_gain", "accuracy", "edge_load", "busiest_edge_load", "rejected")
            rows.append(
                {"policy": policy, "tasks_per_s_and_device": rate} | {key: found[key] for key in kept}
            )
            print(rows[-1], flush=True)
    return rows


def cost() -> list[dict[str, Any]]:
    """Seconds and peak memory of the shipped command, in processes of its own: the growth with each number."""
    usual = {"devices": 10_000, "edges": 100, "tasks": 1_000_000, "jobs": os.cpu_count() or 1}
    changes: list[dict[str, Any]] = [{"tasks": tasks} for tasks in (10**4, 10**5, 10**6, 10**7)]
    changes += [{"devices": devices} for devices in (100, 1_000, 100_000)]
    changes += [{"edges": edges} for edges in (1, 10, 1_000)]
    changes += [{"jobs": 1}, {"policy": "myopic", "timing": "paper", "tasks": 10**7}]
    changes += [{"policy": "planner", "tasks": 10**7}]
    for policy, timing in (("myopic", "paper"), ("myopic", "network"), ("planner", "network")):
        # Compiled, and planned, before the time counts.
        command_cost({**usual, "tasks": 1000, "jobs": 1, "policy": policy, "timing": timing})
    rows = []
    for change in changes:
        run = {"policy": "myopic", "timing": "network", **usual, **change}
        rows.append({**run, "changed": list(change), **command_cost(run)})
        print(rows[-1], flush=True)
    return rows


def command_cost(run: dict[str, Any]) -> dict[str, float]:
    """Of `offramp simulate`: seconds, those of processors, and MiB: its largest process times how many there are."""
    arguments = [f"--{name}={value}" for name, value in run.items()]
    command = [sys.executable, "-m", "offramp", "simulate", *arguments, "--p=0.3", "--no-adapt", "--json"]
    program = (
        "import json, resource, subprocess, sys, time\n"
        "began = time.monotonic(); subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "seconds, spent = time.monotonic() - began, used.ru_utime + used.ru_stime\n"
        "print(json.dumps([seconds, spent, used.ru_maxrss / 1024]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *command], capture_output=True, text=True, check=True
    )
    seconds, spent, peak = json.loads(done.stdout)
    processes = 1 if run["jobs"] == 1 else 1 + min(run["jobs"], run["edges"])
    return {"seconds": round(seconds, 2), "cpu_s": round(spent, 2), "peak_mib": round(peak * processes, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parts", default="simulated,fleet,cost,measured")
    parser.add_argument("--seconds", type=float, default=2.5, help="of each load that is measured")
    parser.add_argument("-o", "--output", type=Path, default=RESULT)
    args = parser.parse_args()
    value: dict[str, Any] = json.loads(args.output.read_text()) if args.output.exists() else {}
    parts: dict[str, Callable[[], Any]] = {
        "simulated": simulated,
        "fleet": fleet,
        "cost": cost,
        "measured": lambda: carried(args.seconds),
    }
    for part in args.parts.split(","):
        rows = parts[part]()
        value[part] = {"made_with": provenance(), "cores": os.cpu_count(), "rows": rows}
        value = {"format": "offramp.capacity/1"} | value
        write_atomically(args.output, json.dumps(value, indent=1, allow_nan=False) + "\n")
        if part == "measured":
            write_atomically(args.output.with_name("carried.md"), table(rows))


if __name__ == "__main__":
    end_in_order()
    main()
