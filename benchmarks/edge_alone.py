"""The edge alone against LitServe and Ray Serve on the same network, and ONNX Runtime in a bare loop as the limit.

    python benchmarks/edge_alone.py [--exits 1,4] [--sizes 1,8] [--rounds 8] [--seconds 1] [--clients 8] [-o FILE]

Each exit of the bundled network becomes an ONNX file of its own, which every server serves with one worker of one
thread. The clients are the same everywhere: so many connections of one process on this machine, one task in flight
each, raw bytes there and back; over HTTP/1.1 to the others, with `offramp.runtime.client` to the edge. `size` is the
number of images in a task. All servers are up at the same time and idle but for the one that is loaded; rounds go
through them in turn, each time beginning with another one. Ratios are of one round, and their median is given.

Throughput is of clients that ask again at once, and so is the processor time of a server and all its processes, which
other work on the machine disturbs least. Latency is at half of that server's own throughput, Poisson arrivals.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from serving.clients import Client, pace, saturate, with_clients
from serving.edge import Running, Served, clients_of, extract, inputs, numbers, processor_s, running
from serving.network import Network

from offramp.experiments.provenance import provenance
from offramp.validation import write_atomically

HERE = Path(__file__).parent
RESULT = HERE / "results" / "edge-alone.json"
SERVERS = ("offramp", "litserve", "ray")
WARM_S = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--exits", type=numbers, default=(1, 4))
    parser.add_argument("--sizes", type=numbers, default=(1, 8))
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("-o", "--output", type=Path, default=RESULT)
    args = parser.parse_args()
    missing = [name for name in ("litserve", "ray") if find_spec(name) is None]
    if missing:
        print(f"not installed: {', '.join(missing)}; install offramp[bench] to compare with other servers")
        return
    rows: list[dict] = []
    with tempfile.TemporaryDirectory() as folder:
        for exit in args.exits:
            served = extract(exit, Path(folder))
            with ExitStack() as started:
                servers = {name: started.enter_context(running(name, served)) for name in SERVERS}
                for number in range(args.rounds):
                    rows += one_round(served, servers, number, args)
    value = {
        "format": "offramp.edge-alone/1",
        "made_with": provenance(),
        "clients": args.clients,
        "seconds": args.seconds,
        "rows": rows,
        "ratios": ratios(rows),
    }
    write_atomically(args.output, json.dumps(value, indent=1, allow_nan=False) + "\n")
    write_atomically(args.output.with_suffix(".md"), table(value))
    print(table(value))


def one_round(
    served: Served, servers: dict[str, Running], number: int, args: argparse.Namespace
) -> list[dict]:
    """All servers once at each size, beginning with another one each round."""
    rows = []
    names = ("onnxruntime", *SERVERS)
    for size in args.sizes:
        for name in names[number % len(names) :] + names[: number % len(names)]:
            if name == "onnxruntime":
                figures = bare_loop(served, size, args.seconds)
            else:
                figures = loaded(name, served, servers[name], size, args)
            rows.append({"round": number, "exit": served.exit, "size": size, "server": name, **figures})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def bare_loop(served: Served, size: int, lasting_s: float) -> dict[str, float]:
    """One thread that does nothing but run the network."""
    network, batches = Network(str(served.model)), inputs(size)
    for batch in batches:
        network.run(batch)
    began_s, count = time.perf_counter(), 0
    while (now_s := time.perf_counter()) < began_s + lasting_s:
        network.run(batches[count % len(batches)])
        count += 1
    return {"tasks_per_s": count / (now_s - began_s)}


def loaded(
    name: str, served: Served, server: Running, size: int, args: argparse.Namespace
) -> dict[str, float]:
    """Throughput, then latency at half of it."""
    batches, rng, port = inputs(size), np.random.default_rng(size), server.port

    busy_s = 0.0

    async def fill(clients: list[Client]) -> list[float]:
        nonlocal busy_s
        await saturate(clients, batches, WARM_S)
        busy_s = processor_s(server.pid)
        return await saturate(clients, batches, args.seconds)

    async def half(clients: list[Client]) -> list[float]:
        return await pace(clients, batches, rate / 2, args.seconds, rng)

    ends_s = asyncio.run(with_clients(clients_of(name, served, port, args.clients), fill))
    busy_s = processor_s(server.pid) - busy_s
    rate = len(ends_s) / ends_s[-1]
    taken_ms = 1000 * np.array(asyncio.run(with_clients(clients_of(name, served, port, args.clients), half)))
    return {
        "tasks_per_s": rate,
        "processor_ms": 1000 * busy_s / len(ends_s),
        "half_load_p50_ms": float(np.median(taken_ms)),
        "half_load_p95_ms": float(np.quantile(taken_ms, 0.95)),
    }


def ratios(rows: list[dict]) -> list[dict]:
    """The edge over each other server in the same round; medians of the rounds."""
    found = []
    for exit, size in sorted({(row["exit"], row["size"]) for row in rows}):
        cell = [row for row in rows if (row["exit"], row["size"]) == (exit, size)]
        own = {row["round"]: row for row in cell if row["server"] == "offramp"}
        for other in ("onnxruntime", "litserve", "ray"):
            theirs = [row for row in cell if row["server"] == other]
            row = {"exit": exit, "size": size, "over": other}
            row["throughput"] = statistics.median(
                own[r["round"]]["tasks_per_s"] / r["tasks_per_s"] for r in theirs
            )
            if other != "onnxruntime":
                row["half_load_p50"] = statistics.median(
                    own[r["round"]]["half_load_p50_ms"] / r["half_load_p50_ms"] for r in theirs
                )
            found.append(row)
    return found


def table(value: dict) -> str:
    """The medians and the ratios as Markdown."""
    lines = [
        "| exit | images a task | server | tasks/s | p50 at half load, ms | p95, ms | processor time a task, ms "
        "| edge's tasks/s over it | edge's p50 over it |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    rows = value["rows"]
    for exit, size in sorted({(row["exit"], row["size"]) for row in rows}):
        for server in ("offramp", "litserve", "ray", "onnxruntime"):
            own = [r for r in rows if (r["exit"], r["size"], r["server"]) == (exit, size, server)]
            ratio = next(
                (r for r in value["ratios"] if (r["exit"], r["size"], r["over"]) == (exit, size, server)), {}
            )
            shown = [f"{statistics.median(r['tasks_per_s'] for r in own):.0f}"]
            for name in ("half_load_p50_ms", "half_load_p95_ms", "processor_ms"):
                shown.append(f"{statistics.median(r[name] for r in own):.2f}" if name in own[0] else "–")
            shown += [f"{ratio[n]:.2f}" if n in ratio else "–" for n in ("throughput", "half_load_p50")]
            lines.append(f"| {exit} | {size} | {server} | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
