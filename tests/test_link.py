"""Links carry what packet-by-packet programs say they carry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp.errors import OfframpError
from offramp.link import (
    PACKET_BYTES,
    RateLink,
    TraceLink,
    load_trace,
    make_link,
    parse_delay,
    parse_rate,
)

uploads = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 12_000)), min_size=1, max_size=8)


def packet_by_packet(instants_ms: list[int], planned: list[tuple[int, int]]) -> list[float]:
    """When each upload has crossed, in ms: walk over the opportunities, give each to the first upload waiting."""
    left = [size for _, size in planned]
    done: list[float] = [-1.0] * len(planned)
    lap, number = 0, 0
    while min(done) < 0:
        now_ms = lap * instants_ms[-1] + instants_ms[number]
        for index, (ready_ms, _) in enumerate(planned):
            # In order: an upload waits for those before it, even if it was ready first.
            if left[index] <= 0:
                continue
            if ready_ms <= now_ms:
                left[index] -= PACKET_BYTES
                if left[index] <= 0:
                    done[index] = now_ms
            break
        number += 1
        if number == len(instants_ms):
            lap, number = lap + 1, 0
    return done


@given(st.lists(st.integers(0, 60), min_size=1, max_size=20), uploads)
def test_a_trace_carries_one_packet_at_each_of_its_instants(
    drawn: list[int], planned: list[tuple[int, int]]
) -> None:
    instants_ms = sorted(drawn)
    instants_ms[-1] += 1
    planned = sorted(planned)
    link = TraceLink(np.array(instants_ms), origin_s=0.0)
    found = [link.carry(ready_ms / 1000, size) for ready_ms, size in planned]
    assert [instant_s * 1000 for instant_s in found] == pytest.approx(
        packet_by_packet(instants_ms, planned), abs=1e-6
    )


@given(uploads, st.sampled_from([50_000.0, 125_000.0]))
def test_a_rate_carries_one_byte_after_the_other(planned: list[tuple[int, int]], rate: float) -> None:
    link = RateLink(rate)
    free_s = 0.0
    for ready_ms, size in sorted(planned):
        free_s = max(free_s, ready_ms / 1000) + sum(1 / rate for _ in range(size))
        assert link.carry(ready_ms / 1000, size) == pytest.approx(free_s, rel=1e-9)


@given(st.lists(st.integers(1, 50), min_size=2, max_size=50), st.floats(0, 10), st.floats(0, 1e4))
def test_a_busy_trace_reaches_its_mean_rate(gaps: list[int], origin_s: float, ready_s: float) -> None:
    link = TraceLink(np.cumsum(gaps), origin_s=origin_s)
    size = 500 * len(gaps) * PACKET_BYTES
    start_s = max(origin_s, origin_s + ready_s)
    taken_s = link.carry(start_s, size) - start_s
    lap_s = sum(gaps) / 1000
    assert taken_s == pytest.approx(size / link.bandwidth_bytes_per_s, abs=1.01 * lap_s)


@pytest.mark.parametrize(
    ("text", "bytes_per_s"),
    [
        ("1000kbit", 125_000.0),
        ("10mbit", 1_250_000.0),
        ("8bit", 1.0),
        ("0.5Gbit", 62_500_000.0),
        ("80 kbit/s", 1e4),
    ],
)
def test_rates(text: str, bytes_per_s: float) -> None:
    assert parse_rate(text) == pytest.approx(bytes_per_s)


@pytest.mark.parametrize("text", ["", "fast", "0kbit", "-5kbit", "1000", "1e999bit", "10kbyte", "nan bit"])
def test_bad_rates_are_one_line(text: str) -> None:
    with pytest.raises(OfframpError, match="rate = "):
        parse_rate(text)


def test_delays() -> None:
    assert parse_delay("5ms") == pytest.approx(0.005)
    assert parse_delay("0s") == 0.0
    assert parse_delay("250us") == pytest.approx(0.00025)
    for bad in ("", "5", "-1ms", "61s", "ms"):
        with pytest.raises(OfframpError, match="delay = "):
            parse_delay(bad)


@pytest.mark.parametrize(
    "content", ["", "5\n3\n", "0\n", "a\n", "1.5\n", "-1\n2\n", "99999999999999999999999\n"]
)
def test_bad_traces_are_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "trace"
    path.write_text(content)
    with pytest.raises(OfframpError, match="link-trace"):
        load_trace(path, 0.0, 0.0)


def test_a_trace_takes_the_place_of_the_rate(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_text("0\n1\n2\n4\n")
    link = make_link("1000kbit", "5ms", path, now_s=100.0)
    assert link.delay_s == pytest.approx(0.005)
    assert link.bandwidth_bytes_per_s == pytest.approx(4 * 1500 / 0.004)
    assert link.carry(100.0, 4000) == pytest.approx(100.002)
