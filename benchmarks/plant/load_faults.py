"""More than edge and devices can do, and an end in the middle of it."""

from __future__ import annotations

import dataclasses
import signal
import time

from plant.books import ENDS, ON_TIME, share
from plant.report import Report
from plant.site import MEMORY_BACK, Load, Site, site

MINUTES = 0.5
DEVICES = 3
CAPACITY = Load(p=0.2, k=2.1, slot_s=1 / 70, slowdown=150.0, rate="2000kbit")
"""Each of three devices: 14 tasks a second with 30 ms for each input, at which about nine tenths are in time."""
SETTLED_S = 10.0
KEPT = 0.9
QUEUE = "offramp_edge_queue"
MOST_QUEUED = 256
"""`Limits.queue` of the edge."""


def loaded(there: Site, times: float) -> None:
    """Devices with so many times the load that can be done."""
    there.start_edge()
    assert CAPACITY.slot_s is not None
    slot_s = CAPACITY.slot_s / times
    for number in range(DEVICES):
        # Slots so many times as short with budgets that are not.
        load = dataclasses.replace(CAPACITY, slot_s=slot_s, k=CAPACITY.k * times, seed=number)
        there.start_device(f"d{number}", load)
    there.started()
    there.run_for(SETTLED_S)
    there.remember_memory()


def overload(report: Report) -> None:
    """1, 2 and 5 times what can be done."""
    done = {}
    for times in (1, 2, 5):
        with site() as there:
            loaded(there, times)
            edge_before_kb = there.edge.resources()["rss_kb"]
            from_s = time.monotonic()
            to_s = there.run_for(60.0 * MINUTES)
            ratios = there.memory_ratios()
            edge_ratio = there.edge.resources()["rss_kb"] / edge_before_kb
            there.stop_devices()
            there.edge.signal(signal.SIGTERM)
            there.edge.finish()
            there.close()
            # A journal keeps the rows of its latest tasks only, so the metrics count.
            counted = [counts_between(unit.seen, from_s, to_s) for unit in there.units]
            done[times] = sum(ends[ON_TIME] for ends in counted) / (to_s - from_s)
            submitted = sum(sum(ends.values()) for ends in counted) / (to_s - from_s)
            report.add(f"{times} x: tasks a second", submitted)
            report.add(f"{times} x: on time a second", done[times])
            report.add(
                f"{times} x: longest queue",
                max(seen[QUEUE] for _, seen in there.edge_seen),
                "<=",
                MOST_QUEUED,
            )
            report.add(f"{times} x: memory over before", max(*ratios.values(), edge_ratio), "<=", MEMORY_BACK)
            report.complaints += there.complaints
    report.add("on time at 2 x over at 1 x", done[2] / done[1], ">=", KEPT)
    report.add("on time at 5 x over at 1 x", done[5] / done[1], ">=", KEPT)


def counts_between(
    seen: list[tuple[float, dict[str, float]]], from_s: float, to_s: float
) -> dict[str, float]:
    """Tasks of each end that ended in an interval."""
    inside = [metrics for at_s, metrics in seen if from_s <= at_s <= to_s]
    name = 'offramp_device_ended_total{{end="{}"}}'.format
    return {end: inside[-1][name(end)] - inside[0][name(end)] for end in ENDS}


def stop_under_load(report: Report) -> None:
    """SIGTERM for the edge and then for the devices, with twice the load that can be done."""
    with site() as there:
        loaded(there, 2)
        asked_s = there.edge.signal(signal.SIGTERM)
        status = there.edge.finish()
        edge_took_s = time.monotonic() - asked_s
        there.run_for(3.0)
        asked_s = time.monotonic()
        summaries = there.stop_devices()
        devices_took_s = time.monotonic() - asked_s
        there.close()
        report.add("edge's status", status, "==", 0)
        report.add("edge drained in s", edge_took_s)
        report.add("devices drained in s", devices_took_s)
        report.add("tasks", sum(summary["submitted"] for summary in summaries.values()))
        report.add("accepted tasks failed", sum(summary["failed"] for summary in summaries.values()), "==", 0)
        rows = [row for unit in there.units for row in unit.between(asked_s - 3.0, asked_s - 0.5)]
        report.add("on-time share without the edge", share(rows))
        report.complaints += there.complaints
