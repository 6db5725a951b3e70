"""What an edge and a device tell a Prometheus server, and the answers to /livez and /readyz.

The HTTP server runs on the same event loop as the work: if it answers, that loop turns.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from offramp.runtime.device_core import DeviceCore
from offramp.runtime.edge_core import EdgeCore
from offramp.runtime.edge_job import Batch
from offramp.runtime.listening import HOST, listening
from offramp.runtime.outcomes import End, TaskRecord
from offramp.runtime.own import OwnSystem

REQUEST_S = 2.0
REQUEST_BYTES = 4096
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_TASKS = (1, 2, 4, 8, 16, 32, 64)
_ERRORS = (-0.5, -0.2, -0.1, -0.05, 0.0, 0.05, 0.1, 0.2, 0.5, 1.0)


class _Read(Collector):
    """Values that are read when they are asked for."""

    def __init__(self, read: Callable[[], Iterator[Metric]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        return self._read()


class EdgeMetrics:
    """Of one edge."""

    def __init__(self, core: EdgeCore) -> None:
        self.registry = CollectorRegistry()
        self._core = core
        self.registry.register(_Read(self._read))
        self._waited = _histogram(self.registry, "offramp_edge_wait_seconds", "Uploads waited for a worker.")
        self._computed = _histogram(self.registry, "offramp_edge_compute_seconds", "Tails took.")
        self._batch = Histogram(
            "offramp_edge_batch_tasks", "Tasks run together.", buckets=_TASKS, registry=self.registry
        )

    def computed(self, batch: Batch, computed_s: float) -> None:
        """A worker has computed the tails of one task or several."""
        for work in batch.works:
            self._waited.observe(max(0.0, batch.start_s - work.arrival_s))
        self._computed.observe(computed_s)
        self._batch.observe(len(batch.works))

    def _read(self) -> Iterator[Metric]:
        core, counts = self._core, self._core.counts
        yield GaugeMetricFamily("offramp_edge_devices", "Connected devices.", value=core.devices)
        yield GaugeMetricFamily("offramp_edge_queue", "Uploads that wait.", value=core.waiting)
        busy, workers = core.workers
        yield GaugeMetricFamily("offramp_edge_workers", "Workers.", value=workers)
        yield GaugeMetricFamily("offramp_edge_busy_workers", "Workers that compute.", value=busy)
        yield GaugeMetricFamily("offramp_edge_draining", "1 while it drains.", value=float(core.draining))
        yield GaugeMetricFamily("offramp_edge_drift", "Slower than at the start by.", value=core.speed.drift)
        yield CounterMetricFamily("offramp_edge_announced", "Tasks announced.", value=counts.announced)
        yield CounterMetricFamily("offramp_edge_answered", "Tasks answered.", value=counts.answered)
        refused = CounterMetricFamily("offramp_edge_refused", "Tasks not served.", labels=["stage", "reason"])
        for stage, reasons in (("decision", counts.turned_away), ("upload", counts.declined)):
            for reason, number in reasons.items():
                refused.add_metric([stage, str(reason)], number)
        yield refused
        chosen = CounterMetricFamily("offramp_edge_decisions", "Decisions.", labels=["exit", "cut", "codec"])
        for made, number in counts.chosen.items():
            chosen.add_metric([str(made.exit), str(made.cut), made.codec], number)
        yield chosen


class DeviceMetrics:
    """Of one device; `submitted = ended + in flight` holds at every reading."""

    def __init__(self, core: DeviceCore, own: OwnSystem) -> None:
        self.registry = CollectorRegistry()
        self._core, self._own = core, own
        self.registry.register(_Read(self._read))
        self._reasons = Counter(
            "offramp_device_reasons", "Ends with a reason.", ["end", "reason"], registry=self.registry
        )
        self._options = Counter(
            "offramp_device_answers", "Answers.", ["exit", "cut", "where"], registry=self.registry
        )
        self._total = _histogram(self.registry, "offramp_device_task_seconds", "Arrival to answer.")
        self._head = _histogram(self.registry, "offramp_device_compute_seconds", "Heads took.")
        self._link = _histogram(self.registry, "offramp_device_link_seconds", "Uploads took.")
        self._error = Histogram(
            "offramp_device_prediction_error",
            "Measured over predicted duration, less 1.",
            buckets=_ERRORS,
            registry=self.registry,
        )

    def ended(self, record: TaskRecord) -> None:
        """A task has ended."""
        at = record.measured
        if record.reason:
            self._reasons.labels(str(record.end), record.reason).inc()
        if at.device_start_s is not None and at.send_s is not None:
            self._head.observe(at.send_s - at.device_start_s)
        if record.link_start_s is not None and record.sent_s is not None:
            self._link.observe(record.sent_s - record.link_start_s)
        if at.finish_s is None:
            return
        where = "edge" if at.edge_start_s is not None else "device"
        self._options.labels(str(record.exit), str(record.cut), where).inc()
        taken_s = at.finish_s - record.arrival_s
        self._total.observe(taken_s)
        if record.predicted is not None and record.predicted.finish_s is not None:
            expected_s = record.predicted.finish_s - record.arrival_s
            if expected_s > 0:
                self._error.observe(taken_s / expected_s - 1.0)

    def _read(self) -> Iterator[Metric]:
        ledger, own = self._core.ledger, self._own
        counts = ledger.counts()
        yield CounterMetricFamily("offramp_device_submitted", "Tasks taken on.", value=counts["submitted"])
        yield GaugeMetricFamily("offramp_device_in_flight", "Tasks not ended.", value=ledger.in_flight)
        ended = CounterMetricFamily("offramp_device_ended", "Tasks by their end.", labels=["end"])
        for end in End:
            ended.add_metric([str(end)], counts[str(end)])
        yield ended
        yield CounterMetricFamily(
            "offramp_device_late_answers", "Answers after the end.", value=ledger.late_answers
        )
        yield GaugeMetricFamily("offramp_device_slowdown", "Measured, on the profile.", value=own.slowdown)
        yield GaugeMetricFamily("offramp_device_drift", "Slower than at the start by.", value=own.speed.drift)
        yield GaugeMetricFamily(
            "offramp_device_bandwidth_bytes_per_second", "Of the uplink.", value=own.bandwidth_bytes_per_s
        )
        yield GaugeMetricFamily(
            "offramp_device_edge_trusted",
            "1 while its edge gives signs of life.",
            value=float(self._core.edge.trusted),
        )


def _histogram(registry: CollectorRegistry, name: str, what: str) -> Histogram:
    return Histogram(name, what, buckets=_SECONDS, registry=registry)


class MetricsServer:
    """Answers GET /metrics, /livez and /readyz on loopback."""

    def __init__(self, registry: CollectorRegistry, ready: Callable[[], bool]) -> None:
        self._registry = registry
        self._ready = ready
        self._server: asyncio.Server | None = None

    async def start(self, port: int) -> int:
        """Listen; gives the port. Raises OfframpError if that cannot be done."""
        opening = asyncio.start_server(self._serve, HOST, port, limit=REQUEST_BYTES)
        self._server, bound = await listening(opening, "metrics-port", port)
        return bound

    async def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ValueError, TimeoutError, asyncio.IncompleteReadError):
            request = await asyncio.wait_for(reader.readline(), REQUEST_S)
            status, body = self._answer(request.decode("latin-1").split())
            head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
            head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + body)
            await asyncio.wait_for(writer.drain(), REQUEST_S)
        writer.close()

    def _answer(self, request: list[str]) -> tuple[str, bytes]:
        match request:
            case ["GET", "/metrics", *_]:
                return "200 OK", generate_latest(self._registry)
            case ["GET", "/livez", *_]:
                return "200 OK", b"ok\n"
            case ["GET", "/readyz", *_]:
                return (
                    ("200 OK", b"ready\n") if self._ready() else ("503 Service Unavailable", b"not ready\n")
                )
        return "404 Not Found", b"GET /metrics, /livez or /readyz\n"
