"""Pictures of figure data, the same bytes for the same data."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from offramp.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = "os^vD<>Pph*Xd"
_COLOURS = 10
"""Colours before a second round starts, which is dashed."""
_ASIDE = 0.03
"""Distance between series at a point, as a share of that between points."""


def draw(data: dict[str, Any]) -> bytes:
    """An SVG of `offramp.figure/1` data."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise MissingExtraError("matplotlib", "research") from None
    # A fixed salt and no date: rerunning gives the same file.
    matplotlib.rcParams["svg.hashsalt"] = "offramp"
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4) if data["figure"] == 3 else (8.5, 4.8), layout="constrained")
    if data["figure"] == 3:
        _gain(figure.subplots(1, 2), data)
    else:
        _sweep(figure.subplots(), data)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _gain(axes: Any, data: dict[str, Any]) -> None:
    left, right = axes
    left.plot(data["curve"]["accuracy"], data["curve"]["gain"])
    left.set(xlabel="accuracy", ylabel="gain", title="gain and accuracy")
    exits = data["exits"]["gain"]
    right.bar(range(len(exits)), exits)
    right.set(
        xlabel="exit (0: dropped)",
        ylabel="gain",
        title="gain at the network's exits",
        xticks=range(len(exits)),
    )


def _sweep(axes: Axes, data: dict[str, Any]) -> None:
    from offramp.experiments.figures import drawn_height

    count = len(data["series"])
    for index, (name, points) in enumerate(data["series"].items()):
        at = [point["x"] for point in points]
        # Side by side, so that policies that do the same can be told apart.
        aside = (index - count / 2) * _ASIDE * min(np.diff(at), default=0.0)
        axes.errorbar(
            [x + aside for x in at],
            [drawn_height(point) for point in points],
            yerr=[point["half_width"] for point in points],
            label=name,
            capsize=2,
            markersize=4,
            marker=_MARKERS[index % len(_MARKERS)],
            color=f"C{index % _COLOURS}",
            linestyle="-" if index < _COLOURS else "--",
        )
    scenario = data["scenario"]
    axes.set(
        xlabel=data["label"],
        ylabel=f"sum of gain over {scenario['tasks']} tasks",
        title=f"Figure {data['figure']}, {data['timing']} timing, slot {scenario['slot_s'] * 1e3:g} ms, "
        f"devices slowed {scenario['device_slowdown']:g}×, {data['seeds']} seeds, 95 % intervals",
    )
    axes.title.set_fontsize(9)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axes.grid(alpha=0.3)
