"""What became of a run's tasks, as tables for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from rich.table import Table

from offramp.runtime.outcomes import End
from offramp.task import UNCODED

if TYPE_CHECKING:
    from offramp.runtime.demo import DemoRun


def counts_table(summary: dict[str, object], title: str) -> Table:
    """How many tasks ended how, what they earned, and how well their times were predicted."""
    table = Table(title=title, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    submitted = cast(int, summary["submitted"])
    table.add_row("submitted", str(submitted))
    for end in End:
        count = cast(int, summary[str(end)])
        share = f"  ({count / submitted:.1%})" if submitted else ""
        table.add_row(str(end).replace("_", " "), f"{count}{share}")
    table.add_row("mean gain", _shown(summary["mean_gain"], "{:.3f}"))
    table.add_row("accuracy", _shown(summary["accuracy"], "{:.1%}"))
    table.add_row("accuracy expected of these exits", _shown(summary["expected_accuracy"], "{:.1%}"))
    table.add_row("finish, measured and predicted", _against(summary))
    return table


def _against(summary: dict[str, object]) -> str:
    """Predicted against measured duration, medians, and the median relative error."""
    error = summary["prediction_error"]
    measured_s, predicted_s = summary["median_duration_s"], summary["median_predicted_s"]
    if not isinstance(error, dict) or not isinstance(measured_s, float) or not isinstance(predicted_s, float):
        return "–"
    return f"{1000 * measured_s:.0f} ms, predicted {1000 * predicted_s:.0f} ms, off by {error['median']:.1%}"


def options_table(run: DemoRun) -> Table:
    """How many tasks each option answered, and how many of them in time."""
    from offramp.runtime.demo import counts_by_option

    table = Table(title="where tasks were computed")
    coded = any(record.codec != UNCODED for record in run.records)
    for heading in ("exit", "layers on the device", "of", *(["codec"] * coded), "tasks", "on time"):
        table.add_column(heading, justify="right")
    for chosen, tasks, met in counts_by_option(run.records):
        layers = run.instance.system.exits[chosen.exit - 1].layers
        codec = [chosen.codec] * coded
        table.add_row(str(chosen.exit), str(chosen.cut), str(layers), *codec, str(tasks), str(met))
    return table


def _shown(value: object, form: str) -> str:
    return "unknown" if value is None else form.format(value)
