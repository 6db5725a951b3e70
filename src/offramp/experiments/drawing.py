"""Pictures of figure data, the same bytes for the same data."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from offramp.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = "os^vD<>Pph*Xd"


def draw(data: dict[str, Any]) -> bytes:
    """An SVG of `offramp.figure/1` data."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise MissingExtraError("matplotlib", "research") from None
    # A fixed salt and no date: rerunning gives the same file.
    matplotlib.rcParams["svg.hashsalt"] = "offramp"
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4) if data["figure"] == 3 else (7, 4.5), layout="constrained")
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
    for index, (name, points) in enumerate(data["series"].items()):
        x = [point["x"] for point in points]
        # A solver's series is what it proved: the optimum, or a bound where it could not reach it.
        y = [point["gain"] if point["upper_bound"] is None else point["upper_bound"] for point in points]
        spread = [point["half_width"] for point in points]
        axes.errorbar(
            x, y, yerr=spread, label=name, capsize=2, markersize=4, marker=_MARKERS[index % len(_MARKERS)]
        )
    scenario = data["scenario"]
    axes.set(
        xlabel=data["label"],
        ylabel=f"sum of gain over {scenario['tasks']} tasks",
        title=f"Figure {data['figure']}, {data['timing']} timing, slot {scenario['slot_s'] * 1e3:g} ms, "
        f"devices slowed {scenario['device_slowdown']:g}×, {data['seeds']} seeds, 95 % intervals",
    )
    axes.title.set_fontsize(9)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
