"""How near split inference comes to what physics allows: head + bytes over the link + round trip + tail.

One task at a time through real processes, against the same parts measured bare on the same machine: in a loop, where
caches are warm and nothing sleeps, and at the tasks' own pace, as a lone task meets them.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from offramp import equations
from offramp.errors import OfframpError
from offramp.model.bundle import Bundle
from offramp.model.executor import ChainExecutor
from offramp.model.inputs import random_inputs
from offramp.model.tensors import Array
from offramp.profile import ExitCoefficients
from offramp.runtime.demo import DemoRun, run_demo
from offramp.runtime.demo_processes import DemoSettings
from offramp.runtime.edge_main import exits_with, load_executor
from offramp.runtime.outcomes import TaskRecord
from offramp.runtime.workload import Samples
from offramp.scenario import Scenario
from offramp.streams import Bernoulli
from offramp.worthwhile import worthwhile

ROUNDS = 2
"""Runs of the tasks, with bare runs of their parts in between: both see the same hours of a busy machine."""
REPEATS = 8
"""Bare runs of a task's parts behind each run of the tasks."""
ECHOES = 200
REST_S = 0.02
"""Rest before a part that is measured as a lone task meets it."""
PACED_ECHOES = 40
BUDGETS = 8.0
"""Slots of budget for each input: no task is to be late."""
SPACE = 2.0
"""From one task to the next, in times of what the largest takes at best."""


@dataclass(frozen=True, slots=True)
class AgainstBound:
    """What came of the tasks over one link, seconds.

    Attributes:
        bandwidth_bytes_per_s: of the shaped link.
        tasks: those that the edge answered.
        ratios: measured over bound, one a task.
        paced_ratios: the same, with bare parts that run one at a time behind a rest, as the tasks do.
        measured_s, bound_s, paced_bound_s: medians, from arrival to answer.
        head_s, link_s, round_trip_s, tail_s: medians of the bound's parts.
    """

    bandwidth_bytes_per_s: float
    tasks: int
    ratios: tuple[float, ...]
    paced_ratios: tuple[float, ...]
    measured_s: float
    bound_s: float
    paced_bound_s: float
    head_s: float
    link_s: float
    round_trip_s: float
    tail_s: float

    @property
    def median_ratio(self) -> float:
        return median(self.ratios)

    @property
    def median_paced_ratio(self) -> float:
        return median(self.paced_ratios)


def against_bound(
    bundle: Bundle, settings: DemoSettings, samples: Samples, progress: Callable[[int], None]
) -> AgainstBound:
    """Run `settings.scenario`'s tasks one at a time, `ROUNDS` times, and hold them against the bound.

    Raises OfframpError if the edge answered none: the policy leaves all to the device.
    """
    parts = _BareParts(load_executor(bundle), np.random.default_rng(settings.seed))
    pairs: list[tuple[DemoRun, TaskRecord]] = []
    trips: list[tuple[float, float]] = []
    for number in range(ROUNDS):
        trips.append((round_trip_s(ECHOES, 0.0), round_trip_s(PACED_ECHOES, REST_S)))
        again = replace(settings, seed=settings.seed + number)
        done = number * settings.scenario.tasks

        def show(doing: str, ended: int, record: TaskRecord | None, done: int = done) -> None:
            progress(done + ended)

        run = run_demo(again, bundle, samples, show)
        remote = [record for record in run.records if _remote(record)]
        pairs += [(run, record) for record in remote]
        for record in remote:
            parts.measure(record)
        # Apart from those, which nothing is to cool down in between.
        for record in remote:
            parts.measure_rested(record)
    if not pairs:
        raise OfframpError(
            "policy", settings.policy, "the edge answered no task", "name one that uploads, as edge-only"
        )
    at_once_s, paced_s = zip(*trips, strict=True)
    return _against(pairs, parts, median(at_once_s), median(paced_s))


def _remote(record: TaskRecord) -> bool:
    return record.sent_s is not None and record.measured.edge_start_s is not None and not record.local


def spaced(bundle: Bundle, codecs: str, tasks: int, bandwidth_bytes_per_s: float) -> Scenario:
    """A scenario of one device, as fast as this machine, whose tasks come one at a time."""
    base = Scenario(
        devices=1, tasks=tasks, device_slowdown=1.0, bandwidth_bytes_per_s=bandwidth_bytes_per_s, k=BUDGETS
    )
    exits = worthwhile(exits_with(bundle, codecs))
    largest = base.sizes.model_dump()["high"]
    longest_s = max(_at_once_s(exit, largest, bandwidth_bytes_per_s) for exit in exits)
    return base.model_copy(
        update={"slot_s": SPACE * longest_s + 0.02, "arrivals": Bernoulli(probability=1.0)}
    )


def _at_once_s(exit: ExitCoefficients, size: int, bandwidth_bytes_per_s: float) -> float:
    """Uploading a task as it is and computing all of it on the edge, seconds."""
    input_bytes = equations.linear(exit.output_bytes[:1], size)
    upload_s = equations.upload_duration(input_bytes, bandwidth_bytes_per_s)
    return float(exit.layer_s("edge", size).sum() + upload_s[0])


class _BareParts:
    """Heads and tails on their own, measured as often as asked for."""

    def __init__(self, executor: ChainExecutor, rng: np.random.Generator) -> None:
        self._executor = executor
        self._rng = rng
        self._looped = _Durations()
        self._paced = _Durations()

    def measure(self, record: TaskRecord) -> None:
        """Run the head and the tail of a task's choice in a loop."""
        inputs = self._inputs(record)
        for _ in range(REPEATS):
            self._looped.note(record, *self._took(record, inputs))

    def measure_rested(self, record: TaskRecord) -> None:
        """Run them once behind a rest."""
        inputs = self._inputs(record)
        time.sleep(REST_S)
        self._paced.note(record, *self._took(record, inputs))

    def _inputs(self, record: TaskRecord) -> dict[str, Array]:
        return random_inputs(self._executor.boundary(record.exit, 0), record.size, self._rng)

    def _took(self, record: TaskRecord, inputs: dict[str, Array]) -> tuple[float, float]:
        begin_s = time.perf_counter()
        crossed = self._executor.run_head(record.exit, record.cut, inputs)
        head_s = time.perf_counter() - begin_s
        self._executor.run_tail(record.exit, record.cut, crossed)
        return head_s, time.perf_counter() - begin_s - head_s

    def looped_s(self, record: TaskRecord) -> tuple[float, float]:
        """Head and tail of a task's choice in a loop, seconds."""
        return self._looped.median_s(record)

    def paced_s(self, record: TaskRecord) -> tuple[float, float]:
        """The same behind a rest."""
        return self._paced.median_s(record)


class _Durations:
    """Seconds of head and tail, by what was run."""

    def __init__(self) -> None:
        self._took: dict[tuple[int, int, int], list[tuple[float, float]]] = {}

    def note(self, record: TaskRecord, head_s: float, tail_s: float) -> None:
        self._took.setdefault((record.exit, record.cut, record.size), []).append((head_s, tail_s))

    def median_s(self, record: TaskRecord) -> tuple[float, float]:
        heads, tails = zip(*self._took[record.exit, record.cut, record.size], strict=True)
        return median(heads), median(tails)


def _against(
    pairs: Sequence[tuple[DemoRun, TaskRecord]], parts: _BareParts, round_trip: float, paced_trip: float
) -> AgainstBound:
    rows, paced_rows = [], []
    for run, record in pairs:
        options = run.instance.system.options(0, record.size)
        link_s = float(options.upload_s[options.index(record.exit, record.cut, record.codec)])
        head_s, tail_s = parts.looped_s(record)
        assert record.measured.finish_s is not None
        rows.append((record.measured.finish_s - record.arrival_s, head_s, link_s, tail_s))
        paced_rows.append(parts.paced_s(record))
    measured, head, link, tail = np.array(rows).T
    bound = equations.least_duration(head, link, round_trip, tail)
    paced_head, paced_tail = np.array(paced_rows).T
    paced = equations.least_duration(paced_head, link, paced_trip, paced_tail)
    return AgainstBound(
        bandwidth_bytes_per_s=pairs[0][0].instance.system.bandwidth_bytes_per_s[0],
        tasks=len(rows),
        ratios=tuple(float(ratio) for ratio in measured / bound),
        paced_ratios=tuple(float(ratio) for ratio in measured / paced),
        measured_s=float(np.median(measured)),
        bound_s=float(np.median(bound)),
        paced_bound_s=float(np.median(paced)),
        head_s=float(np.median(head)),
        link_s=float(np.median(link)),
        round_trip_s=round_trip,
        tail_s=float(np.median(tail)),
    )


def round_trip_s(echoes: int, rest_s: float) -> float:
    """Median time of one byte to a listener on this machine's loopback and back, behind a rest each, seconds."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        echo = threading.Thread(target=_echo, args=(server,))
        echo.start()
        with socket.create_connection(server.getsockname()) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            took = []
            for _ in range(echoes):
                time.sleep(rest_s)
                begin_s = time.perf_counter()
                client.sendall(b"x")
                client.recv(1)
                took.append(time.perf_counter() - begin_s)
        echo.join()
    return median(took)


def _echo(server: socket.socket) -> None:
    peer, _ = server.accept()
    with peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := peer.recv(1):
            peer.sendall(data)
