"""One picture of a run: a lane for each device, each link and the edge, on one time axis."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from offramp.errors import MissingExtraError
from offramp.runtime.outcomes import TaskRecord
from offramp.task import Task

COLOURS = ("#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#aa3377", "#bbbbbb")
MISSED = "#cc3311"


def draw_run(tasks: Sequence[Task], records: Sequence[TaskRecord], devices: int, title: str) -> bytes:
    """The picture as an SVG. Raises MissingExtraError without matplotlib."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch
    except ImportError:
        raise MissingExtraError("matplotlib", "research") from None
    lanes = [f"device {n}" for n in range(devices)] + [f"link {n}" for n in range(devices)] + ["edge"]
    last_s = max(
        (record.measured.finish_s or task.deadline_s for task, record in zip(tasks, records, strict=True))
    )
    figure = Figure(
        figsize=(max(10.0, min(40.0, 1.6 * last_s)), 0.55 * len(lanes) + 1.6), layout="constrained"
    )
    axes = figure.subplots()
    for task, record in zip(tasks, records, strict=True):
        _draw_task(axes, task, record, devices)
    axes.set_yticks(range(len(lanes)), lanes)
    axes.set_ylim(len(lanes) - 0.4, -0.6)
    axes.set_xlim(0, last_s * 1.01)
    axes.set_xlabel("seconds since the start")
    axes.set_title(title)
    axes.grid(axis="x", linewidth=0.3)
    exits = sorted({record.exit for record in records if record.exit})
    handles: list[Any] = [Patch(color=_colour(exit), label=f"exit {exit}") for exit in exits]
    handles += [
        Line2D([], [], color="black", marker="|", linestyle="none", label="deadline"),
        Line2D([], [], color=MISSED, marker="x", linestyle="none", label="not on time"),
    ]
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _colour(exit: int) -> str:
    return COLOURS[(exit - 1) % len(COLOURS)]


def _draw_task(axes: Any, task: Task, record: TaskRecord, devices: int) -> None:
    at, lane = record.measured, task.device
    colour = _colour(record.exit) if record.exit else MISSED

    def bar(row: int, start_s: float | None, end_s: float | None) -> None:
        if start_s is not None and end_s is not None and end_s > start_s:
            axes.barh(
                row,
                end_s - start_s,
                left=start_s,
                height=0.62,
                color=colour,
                edgecolor="white",
                linewidth=0.4,
            )

    bar(lane, at.device_start_s, at.send_s if at.send_s is not None else at.finish_s)
    bar(devices + lane, record.link_start_s, record.sent_s)
    bar(2 * devices, at.edge_start_s, at.finish_s)
    met = record.end == "on_time"
    axes.plot(task.deadline_s, lane - 0.38, "|", color="black" if met else MISSED, markersize=6)
    if not met:
        axes.plot(task.arrival_s, lane - 0.38, "x", color=MISSED, markersize=5)
