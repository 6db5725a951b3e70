"""Options that several commands have: each is declared here once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from offramp.policies import POLICIES

# What tasks are drawn from, and what a policy is told of it.
ScenarioFile = Annotated[
    Path | None, typer.Option("--scenario", help="Scenario file (JSON); without it the reference scenario.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same output.")]
Tasks = Annotated[int | None, typer.Option("--tasks", help="Tasks in the stream, M.")]
Devices = Annotated[int | None, typer.Option("--devices", help="Devices, N.")]
ArrivalProbability = Annotated[
    float | None, typer.Option("--p", help="Probability that a slot brings a task to the system, in (0, 1].")
]
BudgetFactor = Annotated[
    float | None, typer.Option("--k", help="Slots of budget for each input of a task, > 0.")
]
SlotLength = Annotated[float | None, typer.Option("--slot-s", help="Length of a slot, seconds, > 0.")]
EdgeWorkers = Annotated[
    int | None,
    typer.Option("--edge-workers", help="Tasks that the edge computes at the same time (network timing)."),
]
MaxBatch = Annotated[
    int | None,
    typer.Option("--max-batch", help="Waiting tasks that the edge may run together (network timing)."),
]
Assume = Annotated[
    Path | None,
    typer.Option("--assume", help="Scenario that the policy is told, where it is not the tasks' own."),
]
Adapt = Annotated[
    bool,
    typer.Option(
        "--adapt/--no-adapt", help="Whether planner and lookahead may plan anew for changed traffic."
    ),
]

# Who decides.
PolicyName = Annotated[
    str | None,
    typer.Option(
        "--policy",
        help=f"One of {', '.join(POLICIES)}; without it planner, or myopic where the research extra is missing.",
    ),
]
ALL_POLICIES = ",".join(POLICIES)
PolicyNames = Annotated[str, typer.Option("--policies", help="Comma-separated names.")]
PolicyFile = Annotated[Path | None, typer.Option("--policy-file", help="A trained policy's file.")]

# The timing model, and links.
TimingOption = Annotated[str, typer.Option("--timing", help="Timing model: paper or network.")]
LinkTrace = Annotated[
    Path | None,
    typer.Option("--link-trace", help="Recorded uplink (Mahimahi) that every device's link replays."),
]
LinkStart = Annotated[
    float,
    typer.Option("--link-start-s", min=0, help="Where in the recording the first device begins, seconds."),
]
AssumeLink = Annotated[
    str,
    typer.Option(
        "--assume-link", help="What is decided on with --link-trace: estimate, mean, or a rate as 1000kbit."
    ),
]

# Models, codecs and images.
BundleOption = Annotated[
    Path | None,
    typer.Option("--bundle", help="Model bundle whose profile to use; without it the bundled one."),
]
RuntimeBundle = Annotated[
    Path | None, typer.Option("--bundle", help="Model bundle; without it the one that is shipped.")
]
Codecs = Annotated[
    str | None,
    typer.Option("--codecs", help="Offer these codecs for what crosses, with commas, or all that pay."),
]
EdgeCodecs = Annotated[
    str,
    typer.Option(
        "--codecs",
        help="Codecs that decisions may name, with commas, or all; without it tensors cross as they are.",
    ),
]
Confidence = Annotated[
    float | None,
    typer.Option(
        "--confidence",
        help="Share of tasks whose lateness plans allow for, in 0.5..0.99; at first by the profile's residuals.",
    ),
]
Data = Annotated[
    Path | None, typer.Option("--data", help="Folder of the data set; else OFFRAMP_DATA, the hub.")
]
InputSeed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the inputs and of the order.")]

BundleArgument = Annotated[
    Path | None, typer.Argument(help="Bundle folder or ONNX file; without it the bundled network.")
]
MostImages = Annotated[
    int | None, typer.Option("--images", min=1, help="Use the first so many test images only.")
]
Threads = Annotated[int, typer.Option("--threads", min=1, help="Threads of each session.")]

# Where the work runs, and what is printed of it.
CORES = os.cpu_count() or 1
Jobs = Annotated[int, typer.Option("--jobs", min=1, help="Processes, where the engine is local.")]
EngineName = Annotated[
    str, typer.Option("--engine", help="Where the work runs: local, or ray for a cluster of machines.")
]
Address = Annotated[
    str | None,
    typer.Option("--address", help="The Ray cluster, as HOST:PORT; without it what RAY_ADDRESS says."),
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
