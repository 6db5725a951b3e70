"""Steps per second: the compiled vector environment against the plain-Python one, on the same scenario.

    python benchmarks/env_steps.py [-o result.json]

Both choose actions at random. They take turns, and the figure is the ratio of the medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np

from offramp.compiled_env import TaskStreamVectorEnv
from offramp.envs import TaskStreamEnv
from offramp.experiments.provenance import provenance

STREAMS = 256
TURNS = 7


def plain_rate(env: TaskStreamEnv, steps: int) -> float:
    """Steps per second of the single environment."""
    rng = np.random.default_rng(0)
    actions = rng.integers(len(env.actions), size=steps)
    started = time.perf_counter()
    env.reset(seed=0)
    for action in actions:
        if env.step(action)[3]:
            env.reset()
    return steps / (time.perf_counter() - started)


def compiled_rate(env: TaskStreamVectorEnv, steps: int) -> float:
    """Steps per second of all streams of the vector environment together."""
    rng = np.random.default_rng(0)
    actions = rng.integers(int(env.single_action_space.n), size=(steps, env.num_envs))
    started = time.perf_counter()
    env.reset(seed=0)
    for row in actions:
        env.step(row)
    return steps * env.num_envs / (time.perf_counter() - started)


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    output = parser.parse_args().output
    plain, compiled = TaskStreamEnv(), TaskStreamVectorEnv(STREAMS)
    compiled_rate(compiled, 2)
    turns = [(plain_rate(plain, 3000), compiled_rate(compiled, 1000)) for _ in range(TURNS)]
    slow, fast = (statistics.median(rates) for rates in zip(*turns, strict=True))
    result = {
        "plain_steps_per_s": round(slow),
        "compiled_steps_per_s": round(fast),
        "ratio": round(fast / slow, 1),
        "streams": STREAMS,
        "turns": TURNS,
        "made_with": provenance(),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if output is not None:
        output.write_text(text + "\n")


if __name__ == "__main__":
    main()
