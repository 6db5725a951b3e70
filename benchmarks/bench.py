"""The benchmark suite: every part one after the other, then one JSON and one page with pictures.

    python benchmarks/bench.py [PART ...] [--again] [--list]

A part that was measured with the same sources (its script and options, the helpers, the package) is kept, and so is
what has ended when Ctrl-C stops the suite. `--again` measures whatever is kept. What each part says while it runs goes
to `build/bench/PART.log`. A part that fails, or misses a limit, is named, and the others are run all the same. Results
are in `benchmarks/results`: `bench.json` holds all of them in short, and docs/benchmarks.md shows them. Status 1 if a
part has failed or has missed a limit.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from plant.processes import end_in_order
from suite.page import REPOSITORY, of_part, write, write_tables
from suite.parts import BENCHMARKS, PARTS, Part

from offramp.validation import write_atomically

TOLD_EVERY_S = 60.0
PATIENCE_S = 60.0
"""How long a part that is told to stop may take to end what it has started."""
FINISHED = ("held", "missed")


@dataclass(frozen=True, slots=True)
class Places:
    """Where scripts, the package that they measure, and stamps and logs are."""

    benchmarks: Path = BENCHMARKS
    package: Path = REPOSITORY / "src" / "offramp"
    build: Path = REPOSITORY / "build" / "bench"

    def stamp(self, part: Part) -> Path:
        """What is known of the last time that a part was run here."""
        return self.build / f"{part.name}.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="all of them without any")
    parser.add_argument("--again", action="store_true", help="measure what is kept, too")
    parser.add_argument("--list", action="store_true", help="name the parts, and what is kept of each")
    args = parser.parse_args()
    names = [part.name for part in PARTS]
    if unknown := [name for name in args.parts if name not in names]:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(names)}")
    chosen = [part for part in PARTS if not args.parts or part.name in args.parts]
    if args.list:
        for part in chosen:
            print(f"{part.name:20} {part.minutes:5g} min  {outcome(part, Places()) or 'not measured here'}")
        return 0
    try:
        return run_suite(chosen, args.again, Places())
    except KeyboardInterrupt:
        print("\nstopped; what has ended is kept", file=sys.stderr)
        return 130
    finally:
        write()
        write_tables()


def outcome(part: Part, places: Places) -> str | None:
    """How a part that need not be measured again ended; None if it has to be."""
    try:
        stamp = json.loads(places.stamp(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    fresh = stamp["sources"] == part.sources(places.benchmarks, places.package)
    there = part.kept(places.benchmarks / "results") is not None
    return stamp["outcome"] if fresh and there and stamp["outcome"] in FINISHED else None


def run_suite(parts: Sequence[Part], again: bool, places: Places) -> int:
    """Run what is not kept; 1 if a part has failed or misses a limit."""
    todo = {part.name for part in parts if again or outcome(part, places) is None}
    minutes = sum(part.minutes for part in parts if part.name in todo)
    print(f"{len(parts)} parts, {len(parts) - len(todo)} kept; about {minutes:g} minutes", flush=True)
    ended: dict[str, str] = {}
    for number, part in enumerate(parts, 1):
        head = f"[{number}/{len(parts)}] {part.name}"
        kept = None if again else outcome(part, places)
        if kept is None:
            print(f"{head}: about {part.minutes:g} minutes", flush=True)
        ended[part.name] = kept or run_part(part, places)
        print(f"{head}: {'kept, ' if kept else ''}{ended[part.name]}", flush=True)
    for name, how in ended.items():
        if how != "held":
            log = places.build / f"{name}.log"
            print(f"{name}: {how}: {last_line(log)} ({log})", file=sys.stderr)
    return 0 if all(how in ("held", "not run") for how in ended.values()) else 1


def run_part(part: Part, places: Places) -> str:
    """Run the commands of a part: `held`, `missed` (a limit), `failed`, or `not run` (its script says why)."""
    places.build.mkdir(parents=True, exist_ok=True)
    sources, began_s = part.sources(places.benchmarks, places.package), time.time()
    results = [places.benchmarks / "results" / name for name in part.results]
    before = [path.stat().st_mtime_ns if path.exists() else 0 for path in results]
    log = places.build / f"{part.name}.log"
    log.write_bytes(b"")
    statuses = [run_command(command, log, part.minutes, places) for command in part.commands]
    written = [
        path.exists() and path.stat().st_mtime_ns != was for path, was in zip(results, before, strict=True)
    ]
    if not all(written):
        # A script without what it needs (recordings, other servers) says so and ends well.
        how = "failed" if any(statuses) else "not run"
    else:
        kept = part.kept(places.benchmarks / "results")
        how = "missed" if any(statuses) or of_part(part, kept)["held"] is False else "held"
    stamp = {
        "sources": sources,
        "outcome": how,
        "statuses": statuses,
        "took_s": round(time.time() - began_s, 1),
    }
    write_atomically(places.stamp(part), json.dumps(stamp) + "\n")
    return how


def run_command(command: str, log: Path, minutes: float, places: Places) -> int:
    """One script; its status. Whoever stops this stops the script with all that it has started."""
    # The stored path is not that of the working folder, so the package has to be found wherever the script is run.
    path = os.pathsep.join([str(places.package.parent.resolve()), os.environ.get("PYTHONPATH", "")])
    with log.open("ab") as said:
        process = subprocess.Popen(
            [sys.executable, *shlex.split(f"{places.benchmarks.name}/{command}")],
            cwd=places.benchmarks.parent,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env=os.environ | {"PYTHONPATH": path.rstrip(os.pathsep), "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
    try:
        return watched(process, log, minutes)
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        raise


def watched(process: subprocess.Popen[bytes], log: Path, minutes: float) -> int:
    """Tell every now and then how long it has taken, and the last that it said; its status."""
    began_s = time.monotonic()
    often = sys.stdout.isatty()
    while True:
        with suppress(subprocess.TimeoutExpired):
            status = process.wait(1.0 if often else TOLD_EVERY_S)
            print("\r\x1b[K" if often else "", end="", flush=True)
            return status
        spent_s = time.monotonic() - began_s
        told = f"  {spent_s / 60:.1f} of about {minutes:g} minutes: {last_line(log)}"[:100]
        print(f"\r\x1b[K{told}" if often else told, end="" if often else "\n", flush=True)


def last_line(log: Path) -> str:
    """The last that a part has said."""
    return "".join(log.read_text(errors="replace").replace("\r", "\n").strip().splitlines()[-1:])


if __name__ == "__main__":
    end_in_order()
    sys.exit(main())
