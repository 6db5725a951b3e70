"""Figures 3, 5, 6 and 7 of the paper: first the data, then the picture drawn from it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from offramp import equations
from offramp.errors import OfframpError
from offramp.experiments.cells import CEILING, Cell, NetworkExits, Outcome, first_notice
from offramp.experiments.engine import Engine, run_kept
from offramp.experiments.provenance import provenance
from offramp.experiments.statistics import mean_interval
from offramp.observation import Timing
from offramp.scenario import Scenario
from offramp.validation import make_folder, write_atomically

Axis = Literal["k", "p", "devices"]


@dataclass(frozen=True, slots=True)
class Sweep:
    """A figure that varies one parameter of the reference scenario."""

    axis: Axis
    label: str
    values: tuple[float, ...]

    def scenario(self, base: Scenario, value: float) -> Scenario:
        """The scenario at one point of the axis."""
        if self.axis == "k":
            return base.changed(k=value)
        if self.axis == "p":
            return base.changed(p=value)
        return base.changed(devices=int(value))


SWEEPS: dict[int, Sweep] = {
    5: Sweep("k", "ratio k (slots of budget per input)", (1, 2, 3, 4, 5, 6, 7, 8)),
    6: Sweep("p", "task arrival rate p (per slot)", (0.05, 0.1, 0.2, 0.3, 0.5)),
    7: Sweep("devices", "number of end devices N", (1, 2, 3, 4, 5, 6)),
}
FIGURES = (3, *SWEEPS)
OFFLINE = ("serial-dp",)
"""Algorithm 1, which the paper draws beside its policies."""


def sweep_cells(
    sweep: Sweep, base: Scenario, policies: Sequence[str], timing: Timing, seeds: int
) -> dict[float, list[Cell]]:
    """The cells of each point of the axis: first the solver that stands above, then the policies.

    Under `paper` the paper's own offline algorithm comes between them.
    """
    names = [CEILING[timing], *(OFFLINE if timing == "paper" else ()), *policies]
    return {
        value: [Cell(sweep.scenario(base, value), name, timing, tuple(range(seeds))) for name in names]
        for value in sweep.values
    }


def run_sweep(
    number: int,
    base: Scenario,
    exits: NetworkExits,
    policies: Sequence[str],
    timing: Timing,
    seeds: int,
    engine: Engine,
    folder: Path,
) -> Iterator[dict[str, Any] | None]:
    """Run a sweep's cells; yields None after each, and the figure's data at the end.

    Cells that `folder`/cells has are not run again.
    """
    sweep = SWEEPS[number]
    points = sweep_cells(sweep, base, policies, timing, seeds)
    cells = [cell for point in points.values() for cell in point]
    results: dict[Cell, list[Outcome]] = {}
    for cell, outcomes in run_kept(cells, exits, engine, folder / "cells"):
        results[cell] = outcomes
        yield None
    series: dict[str, list[dict[str, Any]]] = {}
    for value, point in points.items():
        for cell in point:
            series.setdefault(cell.policy, []).append({"x": value, **_point(results[cell])})
    yield {
        "format": "offramp.figure/1",
        "figure": number,
        "axis": sweep.axis,
        "label": sweep.label,
        "timing": timing,
        "scenario": base.model_dump(mode="json"),
        "seeds": seeds,
        "made_with": provenance(),
        "series": series,
    }


def _point(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    gains = [outcome.gain for outcome in outcomes]
    interval = mean_interval(gains)
    bounds = [outcome.upper_bound for outcome in outcomes if outcome.upper_bound is not None]
    return {
        "gain": interval.mean,
        "half_width": interval.half_width if len(gains) > 1 else 0.0,
        "gains": gains,
        "on_time_share": float(np.mean([outcome.on_time_share for outcome in outcomes])),
        "upper_bound": float(np.mean(bounds)) if len(bounds) == len(outcomes) else None,
        "notice": first_notice(outcomes),
    }


def gain_data(base: Scenario, exits: NetworkExits) -> dict[str, Any]:
    """Figure 3's data: Eq. 1 over accuracy, and at the network's exits."""
    accuracies = [exit.accuracy for exit in exits]
    weight, slope = base.gain.accuracy_weight, base.gain.accuracy_slope
    curve = np.linspace(min(accuracies), 1.0, 201)
    return {
        "format": "offramp.figure/1",
        "figure": 3,
        "made_with": provenance(),
        "scenario": base.model_dump(mode="json"),
        "curve": {
            "accuracy": curve.tolist(),
            "gain": equations.gain(curve, min(accuracies), weight, slope).tolist(),
        },
        "exits": {
            "accuracy": [0.0, *accuracies],
            "gain": [0.0, *equations.gain(np.array(accuracies), min(accuracies), weight, slope).tolist()],
        },
    }


def save_figure(data: dict[str, Any], folder: Path) -> list[Path]:
    """Write a figure's data; draw its picture and a sweep's table from the file that was written; gives the paths."""
    from offramp.experiments.drawing import draw

    make_folder(folder)
    name = f"figure{data['figure']}" + (f"-{data['timing']}" if "timing" in data else "")
    file, picture, table = (folder / f"{name}.{ending}" for ending in ("json", "svg", "md"))
    write_atomically(file, json.dumps(data, indent=1, allow_nan=False) + "\n")
    written = json.loads(file.read_text())
    write_atomically(picture, draw(written))
    if "series" not in written:
        return [file, picture]
    write_atomically(table, sweep_table(written))
    return [file, picture, table]


def sweep_table(data: dict[str, Any]) -> str:
    """A sweep's mean gains with the half-widths of their 95 % intervals, as a table in Markdown."""
    heads = [f"{point['x']:g}" for point in next(iter(data["series"].values()))]
    lines = [f"| {data['label']} | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name, points in data["series"].items():
        shown = [f"{drawn_height(point):.1f} ± {point['half_width']:.1f}" for point in points]
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def drawn_height(point: dict[str, Any]) -> float:
    """What a point of a series says: what a solver proved (the optimum or a bound on it), or a policy's mean gain."""
    height: float = point["gain"] if point["upper_bound"] is None else point["upper_bound"]
    return height


def check_number(number: int) -> None:
    """Raises OfframpError if the paper has no such figure, or it is none of measurements."""
    if number not in FIGURES:
        raise OfframpError("figure", number, f"one of {', '.join(map(str, FIGURES))}", "choose one of these")
