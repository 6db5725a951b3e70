"""`offramp train-policy`."""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from offramp.cli.arguments import check_engine, errors, exits_of, print_json, scenario_from
from offramp.cli.options import (
    Address,
    ArrivalProbability,
    BudgetFactor,
    BundleOption,
    Devices,
    EngineName,
    JsonFlag,
    ScenarioFile,
    Seed,
)
from offramp.errors import MissingExtraError, OfframpError
from offramp.policies.network_file import ALGORITHMS, TARGETS, Algorithm, Target

if TYPE_CHECKING:
    from offramp.training.policy import Learner


def train_policy(
    output: Annotated[Path, typer.Option("-o", "--output", help="Policy file to write (safetensors).")],
    scenario: ScenarioFile = None,
    algorithm: Annotated[
        str, typer.Option("--algorithm", help="ddqn for a family of scenarios, ddqn-paper for one.")
    ] = "ddqn",
    target: Annotated[
        str, typer.Option("--target", help="double, or plain as the paper's line 12 prints it.")
    ] = "double",
    steps: Annotated[
        int | None,
        typer.Option("--steps", min=1, help="Tasks to play; without it the algorithm's own number."),
    ] = None,
    seed: Seed = 0,
    devices: Devices = None,
    p: ArrivalProbability = None,
    k: BudgetFactor = None,
    bundle: BundleOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was broken off.")] = False,
    engine: EngineName = "local",
    address: Address = None,
    json_: JsonFlag = False,
) -> None:
    """Train a policy on simulated streams. Ctrl-C keeps what is done; --resume goes on to the same file."""
    chosen, aimed = algorithm_of(algorithm), target_of(target)
    if importlib.util.find_spec("numba") is None:
        raise MissingExtraError("numba", "research")
    from offramp.training.policy import make_learner, prepare

    drawn_from = scenario_from(scenario, devices=devices, p=p, k=k)
    check_engine(engine, address)
    make = partial(make_learner, chosen, drawn_from, exits_of(bundle), seed, target=aimed, steps=steps)
    if engine == "local":
        learner = make()
        prepare(learner, output, resume)
        gain = _train(learner, output, chosen, json_)
    else:
        from offramp.cluster import cluster
        from offramp.training.remote import RemoteLearner

        with cluster(address) as ray:
            learner = RemoteLearner(ray, make)
            prepare(learner, output, resume)
            gain = _train(learner, output, chosen, json_)
    if json_:
        print_json({"policy": str(output), "algorithm": chosen, "steps": learner.steps, "gain": gain})
    else:
        typer.echo(f"{output}: {chosen}, {learner.steps} tasks, mean gain {gain:.4f} with exploration")


def _train(learner: Learner, output: Path, name: str, quiet: bool) -> float:
    """Run a prepared learner, showing how far it is."""
    from offramp.training.policy import checkpoint_path, train

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} tasks, gain {task.fields[gain]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors, transient=True, disable=quiet) as bar:
        shown = bar.add_task(name, total=learner.steps, gain="…")
        try:
            return train(
                learner,
                output,
                report=lambda done, gain: bar.update(shown, completed=done, gain=f"{gain:.4f}"),
            )
        except KeyboardInterrupt:
            errors.print(f"stopped; {checkpoint_path(output)} keeps what is done, --resume goes on")
            raise typer.Exit(130) from None


def algorithm_of(name: str) -> Algorithm:
    """An algorithm by its name. Raises OfframpError."""
    for algorithm in ALGORITHMS:
        if name == algorithm:
            return algorithm
    raise OfframpError("algorithm", name, f"one of {', '.join(ALGORITHMS)}", "choose one of these")


def target_of(name: str) -> Target:
    """A target by its name. Raises OfframpError."""
    for target in TARGETS:
        if name == target:
            return target
    raise OfframpError("target", name, f"one of {', '.join(TARGETS)}", "choose one of these")
