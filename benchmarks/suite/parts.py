"""The parts of the suite, in the order in which they are run: what is measured, how, and what its results say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plant.report import Figure

from suite import pictures, readers

BENCHMARKS = Path(__file__).resolve().parent.parent
RESULTS = BENCHMARKS / "results"
HELPERS = ("plant", "serving")


@dataclass(frozen=True, slots=True)
class Part:
    """One line of the suite.

    Attributes:
        commands: scripts in `benchmarks` with their options, run one after the other from the folder above.
        results: files in `results` that the commands write, in the reader's order.
        minutes: what it takes, about.
        read, draw: what the results say, and their picture on a figure of matplotlib's.
        section: the part of its results that is this part's, where others write to the same file.
    """

    name: str
    title: str
    measured: str
    minutes: float
    commands: tuple[str, ...]
    results: tuple[str, ...]
    read: Callable[..., list[Figure]]
    draw: Callable[..., None]
    section: str | None = None

    def kept(self, results: Path = RESULTS) -> list[dict[str, Any]] | None:
        """The kept results; None unless all are there."""
        paths = [results / name for name in self.results]
        if not all(path.exists() for path in paths):
            return None
        kept = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        if self.section is None:
            return kept
        return (
            [value[self.section] for value in kept] if all(self.section in value for value in kept) else None
        )

    def sources(self, benchmarks: Path, package: Path) -> str:
        """Digest of all that a measurement depends on: the commands, their scripts, the helpers, the package."""
        scripts = [benchmarks / command.split()[0] for command in self.commands]
        folders = [package, *(benchmarks / name for name in HELPERS)]
        digest = hashlib.sha256("\n".join(self.commands).encode())
        files = [file for folder in folders for file in sorted(folder.rglob("*")) if file.is_file()]
        for path in [*scripts, *(file for file in files if file.parent.name != "__pycache__")]:
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
        return digest.hexdigest()


PARTS: Sequence[Part] = (
    Part(
        "bound",
        "Split inference against the physical bound",
        "One task in flight through a real edge and a real device over shaped links, over head + bytes / rate + round "
        "trip + tail, each measured bare between the runs.",
        1.5,
        ("split_bound.py",),
        ("bound.json",),
        readers.bound,
        pictures.bound,
    ),
    Part(
        "edge-alone",
        "The edge alone against other servers",
        "One exit as an ONNX network, one worker of one thread, the same clients on the same machine, servers in turn; "
        "ratios of one round, medians over the rounds. At the first exit overhead rules, at the last computing.",
        8,
        ("edge_alone.py",),
        ("edge-alone.json",),
        readers.edge_alone,
        pictures.edge_alone,
    ),
    Part(
        "edge-overload",
        "Workers and batches at overload",
        "Tasks on time at 2.5 times what one worker does, by the timing model and by real processes, over one worker "
        "that runs tasks one by one.",
        3,
        ("edge_overload.py --size 4",),
        ("edge-overload.json",),
        readers.edge_overload,
        pictures.edge_overload,
    ),
    Part(
        "carried",
        "What an edge carries",
        "The greatest load of the reference scenario's budgets of which a real edge answers 95 % on time, with real "
        "clients over sockets that share its cores, beside the timing model on the same tasks.",
        3,
        ("capacity.py --parts measured",),
        ("capacity.json",),
        readers.carried,
        pictures.carried,
        "measured",
    ),
    Part(
        "run-against-model",
        "Simulator against run",
        "Twelve recorded runs of real processes, each rehearsed in the simulator; errors of finish times as shares of "
        "the budget.",
        6,
        ("run_against_model.py",),
        ("run-against-model.json",),
        readers.run_against_model,
        pictures.run_against_model,
    ),
    Part(
        "faults",
        "Faults",
        "Real edges and devices whose processes, links and disks fail; after each scenario every device's books are "
        "held against each other.",
        10,
        ("faults.py",),
        ("faults.json",),
        readers.scenarios,
        pictures.scenarios,
    ),
    Part(
        "overload",
        "Lasting overload",
        "Five minutes at each of 1, 2 and 5 times capacity.",
        17,
        ("faults.py overload --minutes 5 -o benchmarks/results/overload.json",),
        ("overload.json",),
        readers.scenarios,
        pictures.scenarios,
    ),
    Part(
        "hostile",
        "Hostile peers",
        "A million bent frames, 20,000 hostile messages beside honest devices, and intruders under mutual TLS.",
        3,
        ("hostile.py",),
        ("hostile.json",),
        readers.scenarios,
        pictures.scenarios,
    ),
    Part(
        "soak",
        "Soak",
        "An edge and three devices for 20 minutes; growth behind the warm-up.",
        21,
        ("soak.py --minutes 20",),
        ("soak.json",),
        readers.soak,
        pictures.soak,
    ),
    Part(
        "link-adaptation",
        "Adapting to the link",
        "Recorded cellular uplinks (their folder in OFFRAMP_LINKS), estimated as the run goes, against every fixed "
        "assumption; simulated.",
        5,
        ("link_adaptation.py",),
        ("link-adaptation.json",),
        readers.link_adaptation,
        pictures.link_adaptation,
    ),
    Part(
        "policies",
        "Policies, `paper` timing",
        "Share of the distance from `myopic` to the optimum that each policy closes, over the grid of the paper's "
        "figures 5 to 7, on streams that nothing was trained on; simulated.",
        30,
        ("policy_grid.py -o benchmarks/results/policy-grid-paper",),
        ("policy-grid-paper.json",),
        readers.policies,
        pictures.policies,
    ),
    Part(
        "policies-network",
        "Policies, `network` timing",
        "The same under `network` timing, to a certified bound: what is closed can only be more than is shown.",
        30,
        ("policy_grid.py --timing network -o benchmarks/results/policy-grid-network",),
        ("policy-grid-network.json",),
        readers.policies,
        pictures.policies,
    ),
    Part(
        "policies-many",
        "The planner with up to 1000 devices",
        "The same for the planner with 5, 6, 20 and 1000 devices, `paper` timing.",
        5,
        (
            "policy_grid.py --k 1,2,3,6 --p 0.3,0.5 --devices 5,6,20,1000 --policies planner "
            "-o benchmarks/results/policy-grid-many",
        ),
        ("policy-grid-many.json",),
        readers.policies,
        pictures.policies,
    ),
    Part(
        "solvers",
        "Offline solvers",
        "`exact` against brute force, CP-SAT and the printed listing: the same gains, and the time for them.",
        5,
        tuple(f"bench_solvers.py {part}" for part in ("judges", "cp-sat", "listing", "growth")),
        tuple(f"solvers-{part}.json" for part in ("judges", "cp-sat", "listing", "growth")),
        readers.solvers,
        pictures.solvers,
    ),
    Part(
        "training",
        "Training",
        "`train-policy --algorithm ddqn-paper` and Stable-Baselines3's DQN side by side until equal quality; steps of "
        "the compiled environment over those of the plain one.",
        18,
        (
            "train_vs_sb3.py -o benchmarks/results/train-vs-sb3.json",
            "env_steps.py -o benchmarks/results/env-steps.json",
        ),
        ("train-vs-sb3.json", "env-steps.json"),
        readers.training,
        pictures.training,
    ),
    Part(
        "simulations",
        "Cost of simulations",
        "`offramp simulate` with growing numbers of tasks, devices and edges, in processes of its own.",
        8,
        ("capacity.py --parts cost",),
        ("capacity.json",),
        readers.simulations,
        pictures.simulations,
        "cost",
    ),
)
