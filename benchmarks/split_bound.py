"""Split inference against the physical bound: `offramp bench`, with what it was made with.

python benchmarks/split_bound.py [--tasks 30] [-o FILE]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from offramp.experiments.provenance import provenance
from offramp.validation import write_atomically

RESULT = Path(__file__).parent / "results" / "bound.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tasks", type=int, default=30)
    parser.add_argument("-o", "--output", type=Path, default=RESULT)
    args = parser.parse_args()
    command = [sys.executable, "-m", "offramp", "bench", "--tasks", str(args.tasks), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return done.returncode
    value = json.loads(done.stdout) | {"made_with": provenance()}
    write_atomically(args.output, json.dumps(value, allow_nan=False) + "\n")
    for link in value["links"]:
        print(
            f"{link['bandwidth_bytes_per_s'] * 8e-6:g} Mbit/s: {link['median_ratio']:.3f} times the bound, "
            f"{link['median_paced_ratio']:.3f} times the bound of parts behind a rest"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
