"""The edge alone against LitServe and Ray Serve on the same network, and ONNX Runtime in a bare loop as the limit.

    python benchmarks/edge_alone.py [--exits 1,4] [--sizes 1,8,1x8] [--rounds 8] [--seconds 1] [--clients 8] [-o FILE]

Each exit of the bundled network becomes an ONNX file of its own, which every server serves with one worker of one
thread. The clients are the same everywhere: so many connections of one process on this machine, one task in flight
each, raw bytes there and back; over HTTP/1.1 to the others, with `offramp.runtime.client` to the edge. A size is the
number of images in a task; `1x8` is tasks of one image that each server may run together, up to 8 at a time, from twice
as many connections at least. All servers are up at the same time and idle but for the one that is loaded; rounds
go through them in turn, each time beginning with another one. Ratios are of one round, and their median is given.

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
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from plant.processes import end_in_order, processor_s
from serving.clients import Client, pace, saturate, with_clients
from serving.exits import Served, extract, inputs, numbers
from serving.network import Network
from serving.servers import PEERS, Running, clients_of, running

from offramp.experiments.provenance import provenance
from offramp.validation import write_atomically

HERE = Path(__file__).parent
RESULT = HERE / "results" / "edge-alone.json"
SERVERS = ("offramp", *PEERS)
WARM_S = 0.2


@dataclass(frozen=True, order=True)
class Kind:
    """What clients ask for: images in a task, tasks that a server may run together, connections."""

    size: int
    max_batch: int
    clients: int

    @classmethod
    def read(cls, text: str, clients: int) -> Kind:
        """From `8` or `1x8`."""
        size, _, batch = text.partition("x")
        max_batch = int(batch or 1)
        return cls(int(size), max_batch, clients if max_batch == 1 else max(clients, 2 * max_batch))

    @classmethod
    def of(cls, row: dict) -> Kind:
        """Of a row of the result."""
        return cls(row["size"], row["max_batch"], row["clients"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--exits", type=numbers, default=(1, 4))
    parser.add_argument("--sizes", default="1,8,1x8")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("-o", "--output", type=Path, default=RESULT)
    args = parser.parse_args()
    kinds = [Kind.read(text, args.clients) for text in args.sizes.split(",")]
    missing = [name for name in PEERS if find_spec(name) is None]
    if missing:
        print(f"not installed: {', '.join(missing)}; install offramp[bench] to compare with other servers")
        return
    rows: list[dict] = []
    with tempfile.TemporaryDirectory() as folder:
        for exit in args.exits:
            served = extract(exit, Path(folder))
            for batch in sorted({kind.max_batch for kind in kinds}):
                alike = [kind for kind in kinds if kind.max_batch == batch]
                with ExitStack() as started:
                    servers = {
                        name: started.enter_context(running(name, served, max_batch=batch))
                        for name in SERVERS
                    }
                    for number in range(args.rounds):
                        for kind in alike:
                            named = {"round": number, "exit": exit, **asdict(kind)}
                            for row in one_round(served, servers, kind, number, args.seconds):
                                rows.append({**named, **row})
                                print(json.dumps(rows[-1]), flush=True)
    value = {
        "format": "offramp.edge-alone/2",
        "made_with": provenance(),
        "seconds": args.seconds,
        "rows": rows,
        "ratios": ratios(rows),
    }
    write_atomically(args.output, json.dumps(value, indent=1, allow_nan=False) + "\n")
    write_atomically(args.output.with_suffix(".md"), table(value))
    print(table(value))


def one_round(
    served: Served, servers: dict[str, Running], kind: Kind, number: int, lasting_s: float
) -> list[dict]:
    """All servers once, beginning with another one each round."""
    rows = []
    names = ("onnxruntime", *SERVERS)
    for name in names[number % len(names) :] + names[: number % len(names)]:
        if name == "onnxruntime":
            figures = bare_loop(served, kind, lasting_s)
        else:
            figures = loaded(name, served, servers[name], kind, lasting_s)
        rows.append({"server": name, **figures})
    return rows


def bare_loop(served: Served, kind: Kind, lasting_s: float) -> dict[str, float]:
    """One thread that does nothing but run the network, on full batches."""
    network, batches = Network(str(served.model)), inputs(kind.size * kind.max_batch)
    for batch in batches:
        network.run(batch)
    began_s, count = time.perf_counter(), 0
    while (now_s := time.perf_counter()) < began_s + lasting_s:
        network.run(batches[count % len(batches)])
        count += 1
    return {"tasks_per_s": count * kind.max_batch / (now_s - began_s)}


def loaded(name: str, served: Served, server: Running, kind: Kind, lasting_s: float) -> dict[str, float]:
    """Throughput, then latency at half of it."""
    batches, rng = inputs(kind.size), np.random.default_rng(kind.size)
    busy_s = 0.0

    async def fill(clients: list[Client]) -> list[float]:
        nonlocal busy_s
        await saturate(clients, batches, WARM_S)
        busy_s = processor_s(server.pid)
        return await saturate(clients, batches, lasting_s)

    async def half(clients: list[Client]) -> list[float]:
        return await pace(clients, batches, rate / 2, lasting_s, rng)

    def connected() -> list[Client]:
        return clients_of(name, served, server.port, kind.clients)

    ends_s = asyncio.run(with_clients(connected(), fill))
    busy_s = processor_s(server.pid) - busy_s
    rate = len(ends_s) / ends_s[-1]
    taken_ms = 1000 * np.array(asyncio.run(with_clients(connected(), half)))
    return {
        "tasks_per_s": rate,
        "processor_ms": 1000 * busy_s / len(ends_s),
        "half_load_p50_ms": float(np.median(taken_ms)),
        "half_load_p95_ms": float(np.quantile(taken_ms, 0.95)),
    }


def cells(rows: list[dict]) -> list[tuple[int, Kind]]:
    """Exits and kinds of task that were measured."""
    return sorted({(row["exit"], Kind.of(row)) for row in rows})


def ratios(rows: list[dict]) -> list[dict]:
    """The edge over each other server in the same round; medians of the rounds."""
    found = []
    for exit, kind in cells(rows):
        cell = [row for row in rows if (row["exit"], Kind.of(row)) == (exit, kind)]
        own = {row["round"]: row for row in cell if row["server"] == "offramp"}
        for other in ("onnxruntime", *PEERS):
            theirs = [row for row in cell if row["server"] == other]
            row = {"exit": exit, **asdict(kind), "over": other}
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
        "| exit | images a task | tasks a batch | server | tasks/s | p50 at half load, ms | p95, ms "
        "| processor time a task, ms | edge's tasks/s over it | edge's p50 over it |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    rows = value["rows"]
    for exit, kind in cells(rows):
        for server in (*SERVERS, "onnxruntime"):
            own = [r for r in rows if (r["exit"], Kind.of(r), r["server"]) == (exit, kind, server)]
            ratio = next(
                (r for r in value["ratios"] if (r["exit"], Kind.of(r), r["over"]) == (exit, kind, server)), {}
            )
            shown = [f"{statistics.median(r['tasks_per_s'] for r in own):.0f}"]
            for name in ("half_load_p50_ms", "half_load_p95_ms", "processor_ms"):
                shown.append(f"{statistics.median(r[name] for r in own):.2f}" if name in own[0] else "–")
            shown += [f"{ratio[n]:.2f}" if n in ratio else "–" for n in ("throughput", "half_load_p50")]
            lines.append(
                f"| {exit} | {kind.size} | {kind.max_batch} | {server} | " + " | ".join(shown) + " |"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    end_in_order()
    main()
