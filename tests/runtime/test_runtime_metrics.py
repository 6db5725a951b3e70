"""What an edge and a device show of themselves while they work."""

from __future__ import annotations

import re
import signal
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

import grpc
from test_runtime_processes import _refused, device_arguments, running, share


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def values(text: str) -> dict[str, float]:
    """Sample name with its labels → value."""
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_the_books_balance_at_every_reading(tmp_path: Path) -> None:
    tasks_file = share(tmp_path / "share.npz", tasks=30, gap_s=0.05)
    ports = free_port(), free_port()
    edge_arguments = ["edge", "--port", "0", "--policy", "edge-only", "--supervised"]
    with running(*edge_arguments, "--metrics-port", str(ports[0])) as edge:
        address = f"127.0.0.1:{edge.event('ready')['port']}"
        with running(*device_arguments(address, tasks_file), "--metrics-port", str(ports[1])) as device:
            device.event("ready")
            assert get(ports[1], "/livez") == (200, "ok\n")
            device.order(start_s=time.monotonic())
            for _ in range(10):
                device.event("task")
                seen = values(get(ports[1], "/metrics")[1])
                ended = sum(
                    value for name, value in seen.items() if name.startswith("offramp_device_ended_total{")
                )
                in_flight = seen["offramp_device_in_flight"]
                assert seen["offramp_device_submitted_total"] == ended + in_flight
            shown = values(get(ports[0], "/metrics")[1])
            assert shown["offramp_edge_devices"] == 1
            assert shown["offramp_edge_announced_total"] >= 10
            assert shown["offramp_edge_compute_seconds_count"] == shown["offramp_edge_answered_total"] > 0
            assert any(
                re.match(r'offramp_edge_decisions_total\{codec="fp32",cut="0",exit="\d"\}', name)
                for name in shown
            )
        assert get(ports[0], "/readyz") == (200, "ready\n")
        assert get(ports[0], "/nothing")[0] == 404
        with grpc.insecure_channel(address) as channel:
            assert channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=5) == b"\x08\x01"
        edge.process.send_signal(signal.SIGTERM)
        edge.event("done")


def test_a_busy_metrics_port_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with running("edge", "--port", "0", "--metrics-port", str(port)) as edge:
            _refused(edge, f"metrics-port = {port}")
