"""Faults against the shipped commands: what is lost, who notices when, and how soon service is back.

    python benchmarks/faults.py [SCENARIO ...] [--minutes 0.5] [--list] [-o FILE]

Starts real edges and devices (`offramp edge`, `offramp device`) as processes and does to them what a plant does. After
each scenario every device's books are held against each other: the ends in its summary, in its journal and in its
metrics at every reading. `--minutes` is how long each of the three loads of `overload` lasts. Scenarios that need
network namespaces or a small file system are left out, saying so, where this user may not make them. Status 1 if a
figure misses its limit.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from plant import disk_faults, link_faults, load_faults, process_faults
from plant.processes import PlantError, end_in_order
from plant.report import Report, Skipped, table

from offramp.experiments.provenance import provenance
from offramp.validation import write_atomically

RESULT = Path(__file__).parent / "results" / "faults.json"
SCENARIOS = {
    "edge-kill": process_faults.edge_kill,
    "edge-hang": process_faults.edge_hang,
    "edge-restart": process_faults.edge_restart,
    "device-kill": process_faults.device_kill,
    "partition": link_faults.partition,
    "partition-up": link_faults.partition_up,
    "partition-down": link_faults.partition_down,
    "loss": link_faults.loss,
    "jitter": link_faults.jitter,
    "rate-drop": link_faults.rate_drop,
    "overload": load_faults.overload,
    "stop": load_faults.stop_under_load,
    "disk-full": disk_faults.disk_full,
    "journal-damaged": disk_faults.journal_damaged,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="all of them without any")
    parser.add_argument("--minutes", type=float, default=0.5)
    parser.add_argument("--list", action="store_true", help="name the scenarios")
    parser.add_argument("-o", "--output", type=Path, default=RESULT)
    args = parser.parse_args()
    if args.list:
        print("\n".join(SCENARIOS))
        return 0
    unknown = [name for name in args.scenarios if name not in SCENARIOS]
    if unknown:
        parser.error(f"no such scenario: {', '.join(unknown)}")
    load_faults.MINUTES = args.minutes
    reports: list[Report] = []
    for name in args.scenarios or SCENARIOS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        reports.append(run(name))
        print(table(reports[-1:]), flush=True)
    kept = earlier(args.output) if args.scenarios else {}
    found = kept | {report.scenario: asdict(report) | {"passed": report.passed} for report in reports}
    value = {
        "format": "offramp.faults/1",
        "made_with": provenance(),
        "scenarios": {name: found[name] for name in SCENARIOS if name in found},
    }
    write_atomically(args.output, json.dumps(value, indent=1, allow_nan=False) + "\n")
    all_reports = [Report.of(found[name]) for name in SCENARIOS if name in found]
    write_atomically(args.output.with_suffix(".md"), table(all_reports) + "\n")
    return 0 if all(report.passed for report in reports) else 1


def run(name: str) -> Report:
    """One scenario; a plant that did not do what was needed is a failure that says so."""
    report = Report(name)
    began_s = time.monotonic()
    try:
        SCENARIOS[name](report)
    except Skipped as why:
        report.skipped = str(why)
    except PlantError as error:
        report.complaints.append(str(error))
    report.took_s = round(time.monotonic() - began_s, 1)
    return report


def earlier(path: Path) -> dict[str, dict]:
    """Scenarios that were run before; none where there is no such file."""
    try:
        return dict(json.loads(path.read_text())["scenarios"])
    except (OSError, ValueError, KeyError):
        return {}


if __name__ == "__main__":
    end_in_order()
    sys.exit(main())
