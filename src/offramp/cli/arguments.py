"""What commands make of options that they share, and how they print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from offramp.errors import OfframpError
from offramp.observation import TIMINGS, Timing
from offramp.profile import ExitCoefficients
from offramp.scenario import Scenario, load_scenario

if TYPE_CHECKING:
    from offramp.experiments.engine import Engine


errors = Console(stderr=True, highlight=False)
"""Progress and notes go to standard error, so that standard output stays the result."""


def scenario_from(
    path: Path | None,
    *,
    tasks: int | None = None,
    devices: int | None = None,
    p: float | None = None,
    k: float | None = None,
    slot_s: float | None = None,
    edge_workers: int | None = None,
    max_batch: int | None = None,
) -> Scenario:
    """The file's or the reference scenario with the options that were given. Raises OfframpError."""
    return load_scenario(path).changed(
        tasks=tasks, devices=devices, p=p, k=k, slot_s=slot_s, edge_workers=edge_workers, max_batch=max_batch
    )


def timing_of(name: str) -> Timing:
    """A timing model by its name. Raises OfframpError."""
    for timing in TIMINGS:
        if name == timing:
            return timing
    raise OfframpError("timing", name, f"one of {', '.join(TIMINGS)}", "choose one of these")


def exits_of(bundle: Path | None, codecs: str | None = None) -> tuple[ExitCoefficients, ...]:
    """The measured coefficients of a bundle's exits, on its profile's host, with codecs if some are named.

    Raises OfframpError if it has none, or for a codec that does not exist or was not measured.
    """
    from offramp.host_profile import exit_coefficients, load_profile, measured_codecs
    from offramp.model.bundle import PROFILE_NAME, default_bundle_path, read_manifest
    from offramp.model.codecs import named_codecs
    from offramp.worthwhile import worthwhile

    folder = default_bundle_path() if bundle is None else bundle
    manifest = read_manifest(folder)
    if PROFILE_NAME not in manifest.files:
        raise OfframpError(
            "bundle", str(folder), f"must have a {PROFILE_NAME}", "run offramp profile on it first"
        )
    profile = load_profile(folder / PROFILE_NAME)
    measured, shipped = profile.model_sha256, manifest.files[manifest.model].sha256
    if measured != shipped:
        raise OfframpError(
            f"{PROFILE_NAME}: model_sha256", measured, f"must be {shipped}", "profile this model again"
        )
    offered = named_codecs(codecs, measured_codecs(profile))
    accuracies = [exit.accuracy for exit in manifest.exits]
    return worthwhile(exit_coefficients(profile, profile, accuracies, offered))


def engine_of(name: str, address: str | None, jobs: int) -> Engine:
    """The engine of that name. Raises OfframpError."""
    from offramp.experiments.engine import InlineEngine, LocalEngine

    check_engine(name, address)
    if name == "local":
        return InlineEngine() if jobs == 1 else LocalEngine(jobs)
    from offramp.experiments.ray_engine import RayEngine

    return RayEngine(address)


def check_engine(name: str, address: str | None) -> None:
    """Raises OfframpError for an unknown engine, or an address without a cluster."""
    if name not in ("local", "ray"):
        raise OfframpError("engine", name, "local or ray", "choose one of these")
    if name == "local" and address is not None:
        raise OfframpError("address", address, "only with --engine ray", "add --engine ray")


def check_edge_options(timing: Timing, edge_workers: int | None, max_batch: int | None) -> None:
    """Raises OfframpError for an edge of several workers or with batches under `paper`, which knows neither."""
    if timing == "paper" and not (edge_workers is None and max_batch is None):
        raise OfframpError(
            "timing", timing, "must be network with --edge-workers or --max-batch", "add --timing network"
        )


def progress_bar(quiet: bool) -> Progress:
    """Progress with counts and times on a terminal's standard error; none if `quiet`."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=errors,
        transient=True,
        # A file or pipe would get nothing of it but an empty line.
        disable=quiet or not errors.is_terminal,
    )


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on standard output."""
    typer.echo(json.dumps(value, allow_nan=False))


def names_of(text: str, known: dict[str, Any], field: str) -> list[str]:
    """A comma-separated list of names, each one known. Raises OfframpError."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise OfframpError(field, name, f"one of {', '.join(sorted(known))}", "choose among these")
        if names.count(name) > 1:
            raise OfframpError(field, name, "named once at most", "leave it out elsewhere")
    if not names:
        raise OfframpError(field, text, f"at least one of {', '.join(sorted(known))}", "name one")
    return names
