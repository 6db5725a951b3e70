"""A picture for each part, on a figure of matplotlib's; each takes the results of its part as its reader does."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from plant.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Result = dict[str, Any]
SERVERS = ("offramp", "litserve", "ray", "onnxruntime")


def shown(value: float) -> str:
    """Three digits, or all that stand before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def bars(axes: Axes, groups: Sequence[str], series: dict[str, Sequence[float]]) -> None:
    """Groups of bars side by side, one of each series, with their values."""
    width = 0.8 / len(series)
    for number, (name, values) in enumerate(series.items()):
        at = np.arange(len(groups)) + (number - (len(series) - 1) / 2) * width
        drawn = axes.bar(at, values, width, label=name)
        axes.bar_label(drawn, fmt=shown, fontsize=6, rotation=90, padding=2)
    axes.margins(y=0.2)
    axes.set_xticks(range(len(groups)), groups, fontsize=7)
    axes.legend(fontsize=7)


def bound(figure: Figure, result: Result) -> None:
    """Each link's bound in its parts, under what was measured."""
    axes = figure.subplots(1, len(result["links"]))
    for panel, link in zip(axes, result["links"], strict=True):
        bottom = 0.0
        for name in ("head_s", "link_s", "round_trip_s", "tail_s"):
            height = 1000 * link[name]
            panel.bar(["bound"], [height], bottom=bottom, label=name.removesuffix("_s").replace("_", " "))
            bottom += height
        panel.bar(["measured"], [1000 * link["measured_s"]], color="0.5")
        rate = link["bandwidth_bytes_per_s"] * 8e-6
        panel.set_title(f"{rate:g} Mbit/s: {link['median_ratio']:.2f} times", fontsize=9)
    axes[0].set_ylabel("median, ms")
    axes[0].legend(fontsize=7, loc="lower left")


def edge_alone(figure: Figure, result: Result) -> None:
    """Throughput and latency of every server."""
    rows = result["rows"]
    kinds = sorted({(row["exit"], row["size"], row["max_batch"]) for row in rows})

    def medians(server: str, name: str) -> list[float]:
        return [
            statistics.median(
                row[name]
                for row in rows
                if (row["exit"], row["size"], row["max_batch"], row["server"]) == (*kind, server)
            )
            for kind in kinds
        ]

    labels = [f"exit {e}\n{size} image{'s' * (size > 1)}\nbatch ≤ {batch}" for e, size, batch in kinds]
    left, right = figure.subplots(1, 2)
    bars(left, labels, {server: medians(server, "tasks_per_s") for server in SERVERS})
    bars(right, labels, {server: medians(server, "half_load_p50_ms") for server in SERVERS[:-1]})
    for axes, title in ((left, "tasks a second"), (right, "p50 at half load, ms")):
        axes.set_yscale("log")
        axes.set_title(title, fontsize=9)


def edge_overload(figure: Figure, result: Result) -> None:
    """Shares on time by setting."""
    rows = result["rows"]
    exits = sorted({row["exit"] for row in rows})
    settings = sorted({(row["workers"], row["max_batch"]) for row in rows})
    labels = [f"{workers} worker{'s' * (workers > 1)}\nbatch ≤ {batch}" for workers, batch in settings]
    panels = figure.subplots(1, len(exits), squeeze=False)[0]
    for axes, exit in zip(panels, exits, strict=True):
        series = {}
        for how in ("simulated", "run"):
            shares = [
                [
                    row[how] / row["tasks"]
                    for row in rows
                    if (row["exit"], row["workers"], row["max_batch"]) == (exit, *setting) and how in row
                ]
                for setting in settings
            ]
            if all(shares):
                series[how] = [statistics.median(each) for each in shares]
        bars(axes, labels, series)
        axes.set_title(f"exit {exit}: share on time", fontsize=9)


def carried(figure: Figure, result: Result) -> None:
    """Loads that are carried; and the share on time of every load that was tried."""
    rows = result["rows"]
    left, right = figure.subplots(1, 2)
    labels = [f"{row['kind']}\n{row['workers']} w, ≤ {row['max_batch']}" for row in rows]
    series = {
        how: [row[f"{name}_per_s"] for row in rows] for how, name in (("run", "run"), ("model", "simulated"))
    }
    bars(left, labels, series)
    left.tick_params(axis="x", rotation=60)
    left.set_title(f"tasks a second, {rows[0]['share']:.0%} on time", fontsize=9)
    for row, label in zip(rows, labels, strict=True):
        tried = sorted((each["tasks_per_s"], each["on_time_share"]) for each in row["tried"])
        right.semilogx(*zip(*tried, strict=True), "o-", markersize=3, label=label.replace("\n", ", "))
    right.axhline(rows[0]["share"], color="0.5", linewidth=0.8)
    right.set_title("share on time over tasks a second, run", fontsize=9)
    right.legend(fontsize=6)


def run_against_model(figure: Figure, result: Result) -> None:
    """Shares on time against each other, and errors of finish times."""
    rows = result["rows"]
    left, right = figure.subplots(1, 2)
    for row in rows:
        left.plot(row["simulated_on_time_share"], row["on_time_share"], "o", markersize=5)
    least = min(min(row["simulated_on_time_share"], row["on_time_share"]) for row in rows) - 0.02
    left.plot([least, 1], [least, 1], color="0.5", linewidth=0.8)
    left.fill_between([least, 1], [least - 0.03, 0.97], [least + 0.03, 1.03], color="0.9")
    left.set_xlabel("on time, simulated", fontsize=8)
    left.set_ylabel("on time, run", fontsize=8)
    names = [
        f"{row['policy']}\n{row['p']}, {row['k']}, {row['devices']}\n{row['bytes_per_s'] * 8e-6:g}"
        for row in rows
    ]
    errors = {
        label: [100 * row["finish_error"][name] for row in rows]
        for label, name in (("median", "median"), ("95 %", "p95"))
    }
    bars(right, names, errors)
    right.tick_params(axis="x", rotation=90)
    right.set_title("finish off, % of the budget (policy; p, k, N; Mbit/s)", fontsize=9)


def scenarios(figure: Figure, result: Result) -> None:
    """Every limited figure over its limit; right of 1 misses a `<=`, left of it a `>=`."""
    reports = [Report.of(value) for value in result["scenarios"].values() if not value["skipped"]]
    axes = figure.subplots()
    for place, report in enumerate(reports):
        limited = [each for each in report.figures if each.limit]
        for relation, marker in (("<=", "<"), (">=", ">")):
            shown = [each for each in limited if each.relation == relation]
            at = [max(each.value, 0.001 * each.limit) / each.limit for each in shown]
            colors = ["tab:green" if each.holds else "tab:red" for each in shown]
            axes.scatter(at, [place] * len(at), c=colors, marker=marker, s=25)
        exact = [each.holds for each in report.figures if each.relation == "=="]
        if exact:
            axes.plot(1.0, place, "|", color="tab:green" if all(exact) else "tab:red", markersize=14)
    axes.set_xscale("log")
    axes.axvline(1.0, color="0.5", linewidth=0.8)
    axes.set_yticks(range(len(reports)), [report.scenario for report in reports], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("measured over its limit (◂ at most, ▸ at least, | exactly)", fontsize=8)


def soak(figure: Figure, result: Result) -> None:
    """Memory over time."""
    axes = figure.subplots()
    for name, samples in result["samples"].items():
        minutes = (1 + np.arange(len(samples))) * result["sample_s"] / 60
        axes.plot(minutes, [sample["rss_kb"] / 1024 for sample in samples], label=name)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("minutes", fontsize=8)
    axes.set_ylabel("resident memory, MiB", fontsize=8)
    axes.legend(fontsize=7)


def link_adaptation(figure: Figure, result: Result) -> None:
    """Mean gain of each assumption over the recordings, by policy and rate."""
    keys = sorted({(row["policy"], row["p"]) for row in result["rows"]})
    axes = figure.subplots()
    for policy, p in keys:
        gains = [row["gain"] for row in result["rows"] if (row["policy"], row["p"]) == (policy, p)]
        means = [statistics.mean(gain[name]["mean"] for gain in gains) for name in gains[0]]
        axes.plot(list(gains[0]), means, "o-", markersize=4, label=f"{policy}, p = {p}")
    axes.tick_params(axis="x", labelsize=7)
    axes.set_xlabel("link that is assumed", fontsize=8)
    axes.set_ylabel(f"{result['unit']}, mean over recordings", fontsize=8)
    axes.legend(fontsize=7)


def policies(figure: Figure, result: Result) -> None:
    """Closure of each policy by number of devices, and by k."""
    cells = [row for row in result["cells"] if row["most"] > 1.02 * row["myopic"]]
    panels = figure.subplots(1, 2, sharey=True)
    for axes, name in zip(panels, ("devices", "k"), strict=True):
        values = sorted({row[name] for row in cells})
        for policy in result["summary"]:
            closures = [
                statistics.mean(
                    (row[policy] - row["myopic"]) / (row["most"] - row["myopic"])
                    for row in cells
                    if row[name] == value
                )
                for value in values
            ]
            axes.plot([f"{value:g}" for value in values], closures, "o-", markersize=4, label=policy)
        axes.set_xlabel(name, fontsize=8)
        axes.legend(fontsize=7)
    panels[0].set_ylim(0, 1)
    panels[0].set_ylabel("closure", fontsize=8)


def solvers(figure: Figure, judged: Result, cp_sat: Result, listing: Result, growth: Result) -> None:
    """Seconds of `exact` and CP-SAT, and how `exact`'s grow."""
    left, middle, right = figure.subplots(1, 3)
    labels = [f"p {row['p']}\nseed {row['seed']}" for row in cp_sat["rows"]]
    left.semilogy(labels, [row["exact_s"] for row in cp_sat["rows"]], "o", label="exact")
    left.semilogy(labels, [row["cp_sat_s"] for row in cp_sat["rows"]], "s", label="CP-SAT")
    left.tick_params(axis="x", labelsize=6)
    left.legend(fontsize=7)
    bars(middle, [f"M = {listing['tasks']}"], {n: [listing[f"{n}_s"]] for n in ("serial_dp", "listing")})
    middle.set_yscale("log")
    for name in ("M", "N", "L"):
        rows = growth["series"][name]
        right.loglog([row["at"] for row in rows], [row["seconds"] for row in rows], "o-", label=name)
    right.legend(fontsize=7)
    right.set_title("exact over M, N, labels", fontsize=9)
    left.set_ylabel("seconds", fontsize=8)


def training(figure: Figure, sb3: Result, steps: Result) -> None:
    """Seconds and gains of each seed, and steps a second."""
    left, middle, right = figure.subplots(1, 3)
    seeds = [f"seed {row['seed']}" for row in sb3["seeds"]]
    names = (("offramp", "own"), ("Stable-Baselines3", "sb3"))
    bars(left, seeds, {label: [row[f"{name}_s"] for row in sb3["seeds"]] for label, name in names})
    left.set_yscale("log")
    left.set_title("seconds", fontsize=9)
    bars(middle, seeds, {label: [row[name] for row in sb3["seeds"]] for label, name in names})
    middle.set_ylim(bottom=90)
    middle.set_title("mean gain", fontsize=9)
    rates = [steps["plain_steps_per_s"], steps["compiled_steps_per_s"]]
    right.bar_label(right.bar(["plain", "compiled"], rates), fontsize=7)
    right.set_yscale("log")
    right.set_title("steps a second", fontsize=9)


def simulations(figure: Figure, result: Result) -> None:
    """Processor seconds and memory over each number that grows, all else as usual."""
    rows = result["rows"]
    usual = next(row for row in rows if row["changed"] == ["tasks"] and row["tasks"] == 10**6)
    panels = figure.subplots(1, 3, sharey=True)
    for axes, name in zip(panels, ("tasks", "devices", "edges"), strict=True):
        shown = [row for row in rows if row["changed"] == [name]]
        shown = sorted([*shown, *([] if usual in shown else [usual])], key=lambda row: row[name])
        axes.loglog([row[name] for row in shown], [row["cpu_s"] for row in shown], "o-", label="processor s")
        peaks = [row["peak_mib"] for row in shown]
        axes.loglog([row[name] for row in shown], peaks, "s--", label="MiB, all processes")
        axes.set_xlabel(name, fontsize=8)
    panels[0].legend(fontsize=7)
