"""Processes that are killed, that hang, and that come back."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable

from plant.books import ON_TIME, Row, could_end_locally, share
from plant.report import Report
from plant.site import MEMORY_BACK, TRUSTED, Load, Site, Unit, latest, site

WARM_S, OUTAGE_S, AFTER_S, COMPARED_S = 8.0, 8.0, 8.0, 15.0
NOTICED_S, RESUMED_S, LOCAL_SHARE, MOVED = 2.0, 3.0, 0.95, 0.02
SLOWDOWN = "offramp_device_slowdown"


def three_devices(there: Site, load: Load, *more: str, **where: str | None) -> None:
    """Three devices that play, and are warm."""
    for number in range(3):
        seeded = Load(**{name: getattr(load, name) for name in Load.__slots__} | {"seed": number})
        there.start_device(f"d{number}", seeded, *more, **where)  # type: ignore[arg-type]
    there.started()
    there.run_for(WARM_S)
    there.remember_memory()


def local_share(
    units: list[Unit], from_s: float, to_s: float, report: Report, name: str = "local share"
) -> None:
    """Of the tasks that devices alone could end in time, the share that they did."""
    able, all_rows = [], []
    for unit in units:
        rows = unit.between(from_s, to_s)
        slowdown = unit.seen[-1][1][SLOWDOWN]
        able += [row for row, could in zip(rows, could_end_locally(rows, slowdown), strict=True) if could]
        all_rows += rows
    report.add("tasks in that time", len(all_rows))
    report.add("that devices alone could end in time", len(able))
    report.add(name, share(able), ">=", LOCAL_SHARE)
    missed(report, able)


def missed(report: Report, rows: Iterable[Row]) -> None:
    """How the tasks that were not in time ended."""
    for why, count in Counter(
        f"{row.end} {row.reason}".strip() for row in rows if row.end != ON_TIME
    ).items():
        report.add(f"of the others {why}", count)


def outage(report: Report, fail: Callable[[Site], float], restore: Callable[[Site], float]) -> None:
    """The edge is away for a while."""
    with site() as there:
        there.start_edge()
        three_devices(there, Load())
        fault_s = fail(there)
        there.run_for(OUTAGE_S)
        back_s = restore(there)
        there.run_for(AFTER_S)
        ratios = there.memory_ratios()
        after_s = time.monotonic()
        there.stop_devices()
        there.edge.signal(signal.SIGTERM)
        there.edge.finish()
        there.close()
        noticed_s = latest(there.units, lambda unit: unit.first(TRUSTED, 0.0, fault_s), "the outage's notice")
        trusted_s = latest(
            there.units, lambda unit: unit.first(TRUSTED, 1.0, max(back_s, noticed_s)), "the edge's return"
        )
        served_s = there.answered_after(back_s)
        report.add("noticed after s", noticed_s - fault_s, "<=", NOTICED_S)
        local_share(there.units, fault_s + 1.0, back_s, report)
        report.add("devices back after s", trusted_s - back_s, "<=", RESUMED_S)
        report.add("edge answers again after s", served_s - back_s, "<=", RESUMED_S)
        whole = [row for unit in there.units for row in unit.between(back_s + RESUMED_S, after_s)]
        report.add("on-time share afterwards", share(whole))
        missed(report, whole)
        report.add("memory over before", max(ratios.values()), "<=", MEMORY_BACK)
        report.complaints += there.complaints


def edge_kill(report: Report) -> None:
    """SIGKILL, and a new edge later."""
    outage(report, lambda there: _ended(there, signal.SIGKILL), Site.start_edge_again)


def edge_restart(report: Report) -> None:
    """SIGTERM in mid-stream, and a new edge later."""
    outage(report, lambda there: _ended(there, signal.SIGTERM), Site.start_edge_again)


def edge_hang(report: Report) -> None:
    """SIGSTOP, and SIGCONT later."""
    outage(
        report,
        lambda there: there.edge.signal(signal.SIGSTOP),
        lambda there: there.edge.signal(signal.SIGCONT),
    )


def _ended(there: Site, number: signal.Signals) -> float:
    fault_s = there.edge.signal(number)
    there.edge.finish()
    return fault_s


def device_kill(report: Report) -> None:
    """SIGKILL for a device in mid-upload."""
    # Its link is slow and always busy, so that whenever it is killed an upload is under way.
    busy = Load(p=0.1, k=40.0, rate="120kbit", seed=9)
    with site() as there:
        there.start_edge(policy="edge-only")
        three_devices(there, Load(p=0.05, k=20.0))
        victim = there.start_device("victim", busy)
        there.started()
        before_s = time.monotonic()
        there.run_for(COMPARED_S)
        killed_s = victim.command.signal(signal.SIGKILL)
        after_s = there.run_for(COMPARED_S)
        freed = "offramp_edge_devices"
        freed_s = next(
            (at_s for at_s, seen in there.edge_seen if at_s >= killed_s and seen[freed] == 3.0), float("inf")
        )
        others = there.units[:3]
        ratios = there.memory_ratios()
        there.start_device("victim", busy)
        there.started()
        there.run_for(2.0)
        again = there.stop_devices()["victim"]
        there.edge.signal(signal.SIGTERM)
        there.edge.finish()
        there.close()
        shares = [
            share(row for unit in others for row in unit.between(*when))
            for when in ((before_s, killed_s), (killed_s, after_s))
        ]
        report.add("slot freed after s", freed_s - killed_s, "<=", NOTICED_S)
        report.add("others' on-time share before", shares[0])
        report.add("others' on-time share after", shares[1])
        report.add("moved by", abs(shares[1] - shares[0]), "<=", MOVED)
        report.add("tasks ended as crashed when it came back", again["crashed"], ">=", 1)
        report.add("memory over before", max(ratios.values()), "<=", MEMORY_BACK)
        report.complaints += there.complaints
