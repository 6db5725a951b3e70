"""Training time to equal quality: `train-policy --algorithm ddqn-paper` against Stable-Baselines3's DQN.

    python benchmarks/train_vs_sb3.py [--steps 100000] [--seeds 5] [-o result.json]

Both train the paper's network on the paper's state at the reference scenario with p = 0.3; Stable-Baselines3 makes one
gradient step a task. Both are then run on the same streams that nobody trained on. Stable-Baselines3's network is
also run with Offramp's guard, and the comparison is with the better of the two. Offramp's time is that of its whole
run, compiled code warm; that is at most its time to equal quality.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from pathlib import Path
from types import ModuleType

import torch

from offramp.experiments.provenance import provenance
from offramp.policies.base import Context
from offramp.policies.ddqn_paper import DdqnPaper
from offramp.policies.ddqn_paper_learning import PaperLearner, PaperSettings
from offramp.scenario import Scenario

EVALUATION = range(20)


def example() -> ModuleType:
    """examples/sb3_dqn.py, which trains the other side."""
    path = Path(__file__).parent.parent / "examples" / "sb3_dqn.py"
    spec = importlib.util.spec_from_file_location("sb3_dqn", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Train side by side, seed by seed, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    sb3, scenario = example(), Scenario().changed(p=0.3)
    rows = []
    for seed in range(asked.seeds):
        started = time.perf_counter()
        model, env = sb3.train(scenario, asked.steps, seed)
        sb3_s = time.perf_counter() - started
        raw, guarded = (
            sb3.mean_gain(scenario, env, sb3.BaselinePolicy(model, env, guard), EVALUATION)
            for guard in (False, True)
        )
        if seed == 0:
            PaperLearner(env.system, scenario, PaperSettings(), seed).advance()
        started = time.perf_counter()
        learner = PaperLearner(env.system, scenario, PaperSettings(), seed)
        while not learner.finished:
            learner.advance()
        own_s = time.perf_counter() - started
        policy = DdqnPaper.from_bytes(learner.to_bytes(), Context(env.system, scenario=scenario))
        own = sb3.mean_gain(scenario, env, policy, EVALUATION)
        rows.append(
            {"seed": seed, "sb3_s": sb3_s, "sb3": raw, "sb3_guarded": guarded, "own_s": own_s, "own": own}
        )
        print(json.dumps(rows[-1]), flush=True)
    result = {
        "steps": asked.steps,
        "seeds": rows,
        "time_ratio": statistics.median(row["sb3_s"] / row["own_s"] for row in rows),
        "at_least_as_good": sum(row["own"] >= max(row["sb3"], row["sb3_guarded"]) for row in rows),
        "made_with": provenance(),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if asked.output is not None:
        asked.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
