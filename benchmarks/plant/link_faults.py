"""Links that are cut, that lose and delay, and that become slow: real networks between namespaces."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence

from plant.books import Row, share
from plant.model import after, predicted_share
from plant.network import Cable, air, cable, why_no_namespaces
from plant.process_faults import (
    AFTER_S,
    NOTICED_S,
    OUTAGE_S,
    RESUMED_S,
    SLOWDOWN,
    WARM_S,
    local_share,
    missed,
    three_devices,
)
from plant.report import Report, Skipped
from plant.site import MEMORY_BACK, TRUSTED, Load, Site, certify, latest, site

APART = 0.05
"""How far misses may be from what the timing model says."""
ALIKE = Load(p=0.06, k=9.0, seed=4)
"""For runs beside the model: most tasks are worth an upload while the link is whole."""


def namespaces() -> None:
    """Raises Skipped where there can be none."""
    why = why_no_namespaces()
    if why is not None:
        raise Skipped(why)


def finish(there: Site, report: Report) -> None:
    """End everything, and add what did not add up."""
    there.stop_devices()
    there.edge.signal(signal.SIGTERM)
    there.edge.finish()
    there.close()
    report.complaints += there.complaints


def cut_off(report: Report, cut: Callable[[Cable], None]) -> None:
    """Devices and edge under TLS, on a cable that is cut for a while without a word to either."""
    namespaces()
    with cable() as laid, site() as there:
        certs = certify(there.folder, ["d0", "d1", "d2"], [laid.edge_address])
        secure = ("--certs", str(certs))
        there.start_edge(*secure, host=laid.edge_address, namespace=laid.edge)
        three_devices(there, Load(), *secure, namespace=laid.device)
        cut(laid)
        fault_s = time.monotonic()
        there.run_for(OUTAGE_S)
        laid.heal()
        back_s = time.monotonic()
        there.run_for(AFTER_S)
        ratios = there.memory_ratios()
        ended_s = time.monotonic()
        finish(there, report)
        noticed_s = latest(there.units, lambda unit: unit.first(TRUSTED, 0.0, fault_s), "the cut's notice")
        trusted_s = latest(there.units, lambda unit: unit.first(TRUSTED, 1.0, back_s), "the edge's return")
        report.add("noticed after s", noticed_s - fault_s, "<=", NOTICED_S)
        local_share(there.units, fault_s + 1.0, back_s, report)
        report.add("devices back after s", trusted_s - back_s, "<=", RESUMED_S)
        report.add("edge answers again after s", there.answered_after(back_s) - back_s, "<=", RESUMED_S)
        whole = [row for unit in there.units for row in unit.between(back_s + RESUMED_S, ended_s)]
        report.add("on-time share afterwards", share(whole))
        missed(report, whole)
        report.add("memory over before", max(ratios.values()), "<=", MEMORY_BACK)


def partition(report: Report) -> None:
    """Nothing passes in either direction."""
    cut_off(report, Cable.cut)


def partition_up(report: Report) -> None:
    """Nothing reaches the edge, while devices hear it."""
    cut_off(report, lambda laid: laid.cut(down=False))


def partition_down(report: Report) -> None:
    """Nothing reaches the devices, while the edge hears them."""
    cut_off(report, lambda laid: laid.cut(up=False))


def weather(report: Report, loss: float, jitter_s: float) -> None:
    """A link that becomes bad, beside what the timing model says of such a link."""
    namespaces()
    policy = "planner"
    with air() as link, site() as there:
        there.start_edge("--insecure", host=link.edge_address, namespace=link.edge, policy=policy)
        unit = there.start_device("d0", ALIKE, "--insecure", namespace=link.device)
        there.started()
        there.run_for(WARM_S)
        there.remember_memory()
        link.weather.loss, link.weather.jitter_s = loss, jitter_s
        bad_s = time.monotonic()
        there.run_for(4 * OUTAGE_S)
        bad_until_s = time.monotonic()
        ratios = there.memory_ratios()
        finish(there, report)
        interval_s = (bad_s - unit.start_s, bad_until_s - unit.start_s - 1.0)
        rows = unit.rows()
        slowdown = unit.seen[-1][1][SLOWDOWN]
        stretches = [(bad_until_s - unit.start_s + 60.0, 1e6)]
        expected = predicted_share(
            rows, unit.load, policy, slowdown, stretches, interval_s, delay_s=jitter_s / 2
        )
        report.add("packets lost", link.lost / max(1, link.carried))
        misses(report, after(rows, interval_s), expected)
        report.add("memory over before", max(ratios.values()), "<=", MEMORY_BACK)


def misses(report: Report, rows: Sequence[Row], expected: float) -> None:
    """Misses of a run beside those of the timing model."""
    report.add("tasks", len(rows))
    report.add("misses by the timing model", 1.0 - expected)
    report.add("misses", 1.0 - share(rows))
    missed(report, rows)
    report.add("more than by the model", expected - share(rows), "<=", APART)


def loss(report: Report) -> None:
    """5 % of all packets are lost, in both directions."""
    weather(report, 0.05, 0.0)


def jitter(report: Report) -> None:
    """Every packet is late by up to 100 ms, in both directions."""
    weather(report, 0.0, 0.1)


def rate_drop(report: Report) -> None:
    """The link carries a tenth from one moment to the next, and all of it again later."""
    namespaces()
    policy = "planner"
    whole_bits, part_bits = 1e6, 1e5
    with cable() as laid, site() as there:
        laid.rate(whole_bits)
        there.start_edge("--insecure", host=laid.edge_address, namespace=laid.edge, policy=policy)
        unit = there.start_device("d0", ALIKE, "--insecure", namespace=laid.device)
        there.started()
        there.run_for(WARM_S)
        there.remember_memory()
        laid.rate(part_bits)
        slow_s = time.monotonic()
        there.run_for(3 * OUTAGE_S)
        laid.rate(whole_bits)
        fast_s = time.monotonic()
        there.run_for(AFTER_S)
        ended_s = time.monotonic()
        ratios = there.memory_ratios()
        finish(there, report)
        rows = unit.rows()
        instants_s = [at_s - unit.start_s for at_s in (slow_s, fast_s, ended_s)]
        interval_s = (instants_s[0], instants_s[2] - 1.0)
        stretches = [
            (instants_s[0], whole_bits),
            (instants_s[1] - instants_s[0], part_bits),
            (60.0 + instants_s[2] - instants_s[1], whole_bits),
        ]
        slowdown = unit.seen[-1][1][SLOWDOWN]
        expected = predicted_share(rows, unit.load, policy, slowdown, stretches, interval_s)
        misses(report, after(rows, interval_s), expected)
        report.add("memory over before", max(ratios.values()), "<=", MEMORY_BACK)
