"""Whether an edge and its devices grow: memory, threads and descriptors over a long run.

    python benchmarks/soak.py [--minutes 2] [--devices 3] [-o FILE]

Starts real processes and samples each every ten seconds. The first quarter, at most five minutes, is warm-up. Growth
is the median of the last quarter's samples over that of the first ones behind the warm-up, less 1. The default is
short, for a look; the kept result is of 20 minutes. Status 1 if anything grows by more than 2 %.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from plant.processes import end_in_order
from plant.site import Load, Site, site

from offramp.experiments.provenance import provenance
from offramp.validation import write_atomically

RESULT = Path(__file__).parent / "results" / "soak.json"
KEPT_MINUTES = 20.0
SAMPLE_S = 10.0
LONGEST_WARM_UP_S = 300.0
MOST_GROWTH = 0.02
LOAD = Load(p=0.1, k=6.0)
GROWING = ("rss_kb", "anonymous_kb", "threads", "descriptors")
Sample = dict[str, int]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--devices", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, help="else results/soak.json, from 20 minutes on")
    args = parser.parse_args()
    output = args.output or (RESULT if args.minutes >= KEPT_MINUTES else None)
    with site() as there:
        names, samples = soak(there, args.minutes, args.devices)
        summaries = there.stop_devices()
        there.edge.signal(signal.SIGTERM)
        there.edge.finish()
        there.close()
    growths = {name: growth([each[name] for each in samples]) for name in names}
    held = all(value <= MOST_GROWTH for each in growths.values() for value in each.values())
    value = {
        "format": "offramp.soak/1",
        "made_with": provenance(),
        "minutes": args.minutes,
        "tasks": sum(summary["submitted"] for summary in summaries.values()),
        "on_time": sum(summary["on_time"] for summary in summaries.values()),
        "growth": growths,
        "limit": MOST_GROWTH,
        "complaints": there.complaints,
        "sample_s": SAMPLE_S,
        "samples": {name: [each[name] for each in samples] for name in names},
    }
    if output is not None:
        write_atomically(output, json.dumps(value, allow_nan=False) + "\n")
    for name, each in growths.items():
        print(f"{name}: " + ", ".join(f"{what} {grown:+.2%}" for what, grown in each.items()))
    print("\n".join(there.complaints) or f"{value['tasks']} tasks, each ended once")
    return 0 if held and not there.complaints else 1


def soak(there: Site, minutes: float, devices: int) -> tuple[list[str], list[dict[str, Sample]]]:
    """The names of the processes, and what each took at every sample."""
    there.start_edge()
    for number in range(devices):
        there.start_device(f"d{number}", dataclasses.replace(LOAD, seed=number))
    there.started(watched=False)
    commands = [there.edge, *(unit.command for unit in there.units)]
    samples: list[dict[str, Sample]] = []
    began_s = time.monotonic()
    while time.monotonic() < began_s + 60.0 * minutes:
        time.sleep(max(0.0, began_s + SAMPLE_S * (len(samples) + 1) - time.monotonic()))
        samples.append({command.name: command.resources() for command in commands})
        # A plant's Prometheus reads these as well.
        for command in commands:
            command.metrics()
        print(f"\r{len(samples) * SAMPLE_S / 60:.1f} of {minutes:g} minutes", end="", file=sys.stderr)
    print(file=sys.stderr)
    return [command.name for command in commands], samples


def growth(samples: Sequence[Sample]) -> dict[str, float]:
    """Relative growth of each quantity behind the warm-up."""
    warm = min(len(samples) // 4, int(LONGEST_WARM_UP_S / SAMPLE_S))
    span = max(1, len(samples) // 8)
    first, last = samples[warm : warm + span], samples[-2 * span :]
    return {
        name: round(
            statistics.median(each[name] for each in last) / statistics.median(each[name] for each in first)
            - 1,
            5,
        )
        for name in GROWING
    }


if __name__ == "__main__":
    end_in_order()
    sys.exit(main())
