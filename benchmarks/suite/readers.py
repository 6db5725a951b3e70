"""What the kept results of a part say: figures with the limits that are asked of them.

Each reader takes the results of its part, in the order in which `suite.parts` names the files.
"""

from __future__ import annotations

import statistics
from typing import Any

from plant.report import Figure, Report

BOUND_LIMITS = {1: 1.10, 10: 1.15, 100: 1.25}
"""Times the physical bound, by Mbit/s."""
FASTER, SOONER, OF_BARE = 2.0, 0.5, 0.85
OVERLOAD_GAIN = 1.5
SHARE_APART, ERROR_MEDIAN, ERROR_P95 = 0.03, 0.05, 0.20
OVER_MEAN = 0.10
CLOSURES = {
    "paper": {"planner": 0.78, "ddqn": 0.70, "lookahead": 0.65},
    "network": {"planner": 0.60},
    "many": {"planner": 0.70},
}
PAPER_DEVICES = 6
"""Devices of the paper's figures."""
CP_SAT_RATIO, LISTING_RATIO, SB3_RATIO, ENV_RATIO = 500, 100, 20, 25
SAME_GAIN, LEAST_GAP = 1e-9, 0.01
LONGEST_S, MOST_MIB = 300, 2048
Result = dict[str, Any]


def bound(result: Result) -> list[Figure]:
    """Medians over each link."""
    found = []
    for link in result["links"]:
        rate = round(link["bandwidth_bytes_per_s"] * 8e-6, 3)
        limit = BOUND_LIMITS.get(rate)
        name = f"{rate:g} Mbit/s: times the bound, median"
        found.append(Figure(name, link["median_ratio"], "" if limit is None else "<=", limit))
    return found


def edge_alone(result: Result) -> list[Figure]:
    """Ratios to each other server; which limit holds follows from whether overhead or computing rules."""
    found = []
    exits = [row["exit"] for row in result["ratios"]]
    for row in result["ratios"]:
        batch = f", up to {row['max_batch']} together" if row["max_batch"] > 1 else ""
        name = f"exit {row['exit']}, {row['size']} image{'s' * (row['size'] > 1)} a task{batch}: "
        first = row["exit"] == min(exits)
        if row["over"] == "onnxruntime":
            held = {} if first else {"relation": ">=", "limit": OF_BARE}
            found.append(Figure(f"{name}tasks/s of ONNX Runtime's in a bare loop", row["throughput"], **held))
            continue
        least = FASTER if first else 1.0
        found.append(Figure(f"{name}tasks/s over {row['over']}", row["throughput"], ">=", least))
        held = {"relation": "<=", "limit": SOONER} if first else {}
        found.append(Figure(f"{name}p50 at half load over {row['over']}", row["half_load_p50"], **held))
    return found


def setting(row: dict[str, Any]) -> str:
    """Workers and batches in words."""
    return f"{row['workers']} worker{'s' * (row['workers'] > 1)}, up to {row['max_batch']} together"


def edge_overload(result: Result) -> list[Figure]:
    """Tasks on time over one unbatched worker's, with both."""
    found = []
    for row in result["ratios"]:
        both = row["workers"] == 2 and row["max_batch"] > 1
        name = f"exit {row['exit']}, {setting(row)}"
        for how in ("simulated", "run"):
            if row[how] is not None:
                held = {"relation": ">=", "limit": OVERLOAD_GAIN} if both else {}
                found.append(Figure(f"{name}: on time over one worker's, {how}", row[how], **held))
    return found


def run_against_model(result: Result) -> list[Figure]:
    """Of each run, its policy rehearsed with the run's own terms."""
    found = []
    for row in result["rows"]:
        rate = row["bytes_per_s"] * 0.008
        name = f"{row['policy']}, p {row['p']}, k {row['k']}, N {row['devices']}, {rate:g} kbit/s: "
        apart = abs(row["on_time_share"] - row["simulated_on_time_share"])
        found.append(Figure(f"{name}on-time shares apart", apart, "<=", SHARE_APART))
        error = row["finish_error"]
        found.append(Figure(f"{name}finish, median error", error["median"], "<=", ERROR_MEDIAN))
        found.append(Figure(f"{name}finish, 95 % of errors", error["p95"], "<=", ERROR_P95))
    return found


def scenarios(result: Result) -> list[Figure]:
    """Of each scenario how many of its limits are missed, what does not add up, and the missed ones themselves."""
    found = []
    for name, value in result["scenarios"].items():
        report = Report.of(value)
        if report.skipped:
            continue
        missed = [figure for figure in report.figures if not figure.holds]
        count = len(missed) + len(report.complaints)
        limits = sum(figure.limit is not None for figure in report.figures)
        found.append(Figure(f"{name}: missed of {limits} limits and the books", count, "==", 0))
        found += [Figure(f"{name}: {f.name}", f.value, f.relation, f.limit) for f in missed]
    return found


def soak(result: Result) -> list[Figure]:
    """Growth of each process, and tasks that do not add up."""
    found = [
        Figure(f"{name}: growth of {what}", value, "<=", result["limit"])
        for name, each in result["growth"].items()
        for what, value in each.items()
    ]
    return [
        Figure("minutes", result["minutes"], ">=", 20.0),
        *found,
        Figure("complaints of the books", len(result["complaints"]), "==", 0),
    ]


def link_adaptation(result: Result) -> list[Figure]:
    """Over the assumed mean on average, and over the best fixed assumption on each recording."""
    found = [
        Figure(f"{policy}: more than with the mean assumed, on average", share, ">=", OVER_MEAN)
        for policy, share in result["over_mean"].items()
    ]
    for row in result["rows"]:
        ahead = row["ahead_of_best_fixed"]
        name = f"{row['policy']}, p {row['p']}, {row['trace'].removesuffix('.up')}"
        text = f"{name}: gain ahead of the best fixed (± {ahead['half_width']:.2f})"
        found.append(Figure(text, ahead["mean"], ">=", 0.0))
    return found


def policies(result: Result) -> list[Figure]:
    """Closures, and in how many cells a policy is below the one that it must not be below."""
    many = max(row["devices"] for row in result["cells"]) > PAPER_DEVICES
    limits = CLOSURES["many" if many else result["timing"]]
    found = []
    for policy, value in result["summary"].items():
        limit = limits.get(policy)
        name = f"{policy}: mean closure over {value['cells']} cells"
        found.append(Figure(name, value["closure"], "" if limit is None else ">=", limit))
    summary = result["summary"]
    if result["timing"] == "paper" and "ddqn-paper" in summary:
        below = summary["ddqn-paper"]["below_greedy"]
        found.append(Figure("ddqn-paper: cells below greedy", below, "==", 0))
    if result["timing"] == "network":
        below = summary["planner"]["cells_below_myopic"]
        found.append(Figure("planner: cells below myopic", below, "==", 0))
    return found


def solvers(judged: Result, cp_sat: Result, listing: Result, growth: Result) -> list[Figure]:
    """Against other solvers, and the bounded mode's gap at its hardest."""
    found = [
        Figure(f"greatest difference from {judge}", value, "<=", SAME_GAIN)
        for judge, value in judged["greatest_difference"].items()
    ]
    ratio = statistics.median(row["ratio"] for row in cp_sat["rows"])
    found.append(Figure("CP-SAT's seconds over exact's, least", cp_sat["least_ratio"], ">=", CP_SAT_RATIO))
    found.append(Figure("CP-SAT's seconds over exact's, median", ratio))
    found.append(Figure("the listing's seconds over serial-dp's", listing["ratio"], ">=", LISTING_RATIO))
    for row in growth["series"]["M"]:
        if row["at"] == 10_000:
            found.append(Figure("exact, M = 10,000, seconds", row["seconds"], "<=", 2.0))
    bounded = growth["series"]["L"]
    found.append(Figure("bounded, least gap", min(row["gap"] for row in bounded), "<=", LEAST_GAP))
    if quick := [row["seconds"] for row in bounded if row["gap"] <= LEAST_GAP]:
        found.append(Figure("bounded, seconds to a gap of 1 %", min(quick), "<=", 5.0))
    return found


def training(sb3: Result, steps: Result) -> list[Figure]:
    """Time to equal quality, and steps of the environment."""
    seeds = len(sb3["seeds"])
    return [
        Figure("Stable-Baselines3's seconds over ours, median", sb3["time_ratio"], ">=", SB3_RATIO),
        Figure(f"seeds of {seeds} at least as good", sb3["at_least_as_good"], "==", seeds),
        Figure("steps/s, compiled over plain Python", steps["ratio"], ">=", ENV_RATIO),
    ]


def carried(result: Result) -> list[Figure]:
    """What a real edge carries on time beside what the timing model says."""
    found = []
    for row in result["rows"]:
        name = f"{row['kind']}, {setting(row)}"
        found.append(Figure(f"{name}: tasks/s carried", row["run_per_s"]))
        found.append(Figure(f"{name}: by the timing model", row["simulated_per_s"]))
    return found


def simulations(result: Result) -> list[Figure]:
    """The greatest simulations."""
    found = []
    for row in result["rows"]:
        if row["tasks"] == 10**7:
            name = f"10⁷ tasks, {row['devices']:,} devices, {row['edges']} edges, {row['policy']}, `{row['timing']}`"
            asked = row["policy"] == "myopic"
            time = {"relation": "<=", "limit": LONGEST_S} if asked else {}
            memory = {"relation": "<=", "limit": MOST_MIB} if asked else {}
            found.append(Figure(f"{name}: seconds", row["seconds"], **time))
            found.append(Figure(f"{name}: MiB", row["peak_mib"], **memory))
    return found
