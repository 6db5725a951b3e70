"""Peers that mean ill: bent frames through the codec and over real connections, and intruders under mutual TLS.

    python benchmarks/hostile.py [--frames 1000000] [--messages 20000] [--connections 2000] [--seed 0] [-o FILE]

A real edge (`offramp edge`) is sent hostile messages while honest devices (`offramp device`) go on playing. Each
message must be told a typed refusal, or be one that is no worse than an honest device's; the edge must live, and its
memory come back. Then a second edge, with certificates, is tried by everybody who must not come in. About four minutes.
Status 1 if a figure misses its limit.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import resource
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path

from plant.books import share
from plant.hostile_frames import through_the_codec
from plant.hostile_peers import Peers, Told
from plant.intruders import intruders
from plant.processes import end_in_order
from plant.report import Report, table
from plant.site import MEMORY_BACK, Load, Site, site

from offramp.experiments.provenance import provenance
from offramp.validation import write_atomically

RESULT = Path(__file__).parent / "results" / "hostile.json"
HONEST = Load(p=0.04, k=20.0)
BEFORE_S, SETTLED_S = 10.0, 12.0
SERVED = 0.9
MOST_MEMORY = 1.5
"""How far the edge's memory may exceed what it was before, at its peak."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=RESULT)
    args = parser.parse_args()
    reports, counts = [], {}
    for name, scenario in (("codec", codec), ("peers", peers), ("intruders", under_tls)):
        print(f"{name} ...", file=sys.stderr, flush=True)
        report = Report(name)
        began_s = time.monotonic()
        counts[name] = scenario(report, args)
        report.took_s = round(time.monotonic() - began_s, 1)
        reports.append(report)
        print(table([report]), flush=True)
    value = {
        "format": "offramp.hostile/1",
        "made_with": provenance(),
        "scenarios": {report.scenario: asdict(report) | {"passed": report.passed} for report in reports},
        "outcomes": counts,
    }
    write_atomically(args.output, json.dumps(value, indent=1, allow_nan=False) + "\n")
    return 0 if all(report.passed for report in reports) else 1


def codec(report: Report, args: argparse.Namespace) -> dict[str, int]:
    """Bent frames through both sides' decoders."""
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes, faults = through_the_codec(args.frames, args.seed)
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb
    report.add("frames", args.frames)
    report.add("neither message nor refusal", len(faults), "==", 0)
    report.add("peak memory more, MB", grown_kb / 1024, "<=", 64)
    report.complaints += faults[:5]
    return dict(outcomes)


def peers(report: Report, args: argparse.Namespace) -> dict[str, dict[str, int]]:
    """Hostile peers beside honest devices."""
    with site() as there:
        there.start_edge("--codecs", "all", policy="edge-only")
        for number in range(3):
            there.start_device(f"d{number}", dataclasses.replace(HONEST, seed=number))
        there.started()
        there.run_for(BEFORE_S / 2)
        calm_s = time.monotonic()
        there.run_for(BEFORE_S)
        before = there.edge.resources()
        hostile_s = time.monotonic()
        told, closed_s = asyncio.run(attack(there, args))
        over_s = time.monotonic()
        there.run_for(SETTLED_S)
        after = there.edge.resources()
        alive = there.edge.alive
        summaries = there.stop_devices()
        there.edge.signal(signal.SIGTERM)
        there.edge.finish()
        there.close()
        report.add("edge's memory before, MB", before["rss_kb"] / 1024)
        report.add("messages", told.messages)
        report.add("messages that were refused", told.refused.total())
        report.add("messages that an honest device might send", told.taken.total())
        report.add("messages without a typed answer", len(told.untyped), "==", 0)
        report.add("s until the edge closed every flooding connection", closed_s, "<=", 30)
        report.add("edge alive", alive, "==", 1)
        report.add(
            "edge's memory at its peak over before", after["peak_kb"] / before["rss_kb"], "<=", MOST_MEMORY
        )
        report.add(
            "edge's memory afterwards over before", after["rss_kb"] / before["rss_kb"], "<=", MEMORY_BACK
        )
        report.add("edge's threads more", after["threads"] - before["threads"], "<=", 2)
        report.add("edge's descriptors more", after["descriptors"] - before["descriptors"], "<=", 8)
        calm = [row for unit in there.units for row in unit.between(calm_s, hostile_s)]
        rough = [row for unit in there.units for row in unit.between(hostile_s, over_s)]
        report.add("honest tasks meanwhile", len(rough))
        report.add("their on-time share before", share(calm))
        report.add("their on-time share meanwhile", share(rough), ">=", SERVED)
        report.add("honest tasks failed", sum(each["failed"] for each in summaries.values()), "==", 0)
        report.complaints += [*there.complaints, *told.untyped[:5]]
    return {"refused": dict(sorted(told.refused.items())), "taken": dict(sorted(told.taken.items()))}


async def attack(there: Site, args: argparse.Namespace) -> tuple[Told, float]:
    """All that hostile peers do, one kind after the other; what they were told, and how long the flood lasted."""
    hostile = Peers(there.address, args.seed)
    await hostile.first_messages(args.messages // 2)
    await hostile.in_sessions(args.messages // 2)
    await hostile.oversize(min(100, args.messages // 10))
    await hostile.slow(200)
    return hostile.told, await hostile.flood(args.connections)


def under_tls(report: Report, args: argparse.Namespace) -> dict[str, int]:
    """Everybody who must not come in."""
    with site() as there:
        intruders(there, report)
        there.edge.signal(signal.SIGTERM)
        there.edge.finish()
        there.close()
        report.complaints += there.complaints
    return {}


if __name__ == "__main__":
    end_in_order()
    sys.exit(main())
