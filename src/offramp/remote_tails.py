"""The edge's tails on workers of a Ray cluster: one front end, and a pool that survives the loss of its members."""

from __future__ import annotations

import logging
import queue
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from offramp.cache import code_digest
from offramp.cluster import check_code, result_of
from offramp.errors import OfframpError
from offramp.model.blocks import BranchyModel
from offramp.runtime.processor import Answered, Coded, Crossed, Processor

_LOG = logging.getLogger(__name__)
ATTEMPTS = 3
"""Workers that a batch is given to, one after the other, before its tasks are told that they have failed."""
ANSWER_S = 5.0
"""A worker that has not answered for so long is taken for lost: a machine that is gone is noticed later than that."""
IDLE_S = 2.0
"""How long a batch waits for a worker where some have been lost."""
HIRE_S = 60.0
RETRY_S = 2.0
"""From one attempt to replace a lost worker to the next."""
_LOOK_S = 0.2


class LostWorkersError(Exception):
    """No worker has computed a batch: those that were asked are gone, or none is left."""


class RemoteTails:
    """What the edge's server needs of a `Processor`, on actors of a cluster, one core each, spread over its machines.

    A batch whose worker is lost is computed by another; a lost worker is replaced as soon as the cluster has room.
    OfframpError if the cluster has no room for so many at the start.
    """

    def __init__(self, ray: Any, model: BranchyModel, workers: int) -> None:
        self._ray = ray
        outputs = [exit.output for exit in model.exits]
        # A machine of the cluster need not have the file, nor what lies beside it.
        self._model = ray.put((model.graph.source.load_fixed().SerializeToString(), outputs))
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._hiring = ThreadPoolExecutor(workers, thread_name_prefix="edge-hiring")
        hired = [self._hiring.submit(self._hire, HIRE_S) for _ in range(workers)]
        try:
            missing = sum(not one.result() for one in hired)
        except BaseException:
            self.stop()
            raise
        if missing:
            self.stop()
            raise OfframpError(
                "workers",
                workers,
                f"the cluster has room for {workers - missing}",
                "add machines, or ask for fewer",
            )

    def run_tails(self, exit: int, cut: int, given: Sequence[Crossed]) -> Answered:
        """See `Processor`; the seconds are those until the answer is here. Raises LostWorkersError."""
        began_s = time.perf_counter()
        sent = tuple(map(_own, given))
        for _ in range(ATTEMPTS):
            try:
                worker = self._idle.get(timeout=IDLE_S)
            except queue.Empty:
                break
            try:
                reference = worker.run_tails.remote(exit, cut, sent)
                answered: Answered = result_of(self._ray, reference, ANSWER_S)
            except self._ray.exceptions.RayError as error:  # the model's own come as they were raised
                _LOG.warning("a worker is lost, another computes what it had: %s", type(error).__name__)
                self._ray.kill(worker)
                self._hiring.submit(self._replace)
                continue
            except BaseException:
                self._idle.put(worker)
                raise
            self._idle.put(worker)
            return answered._replace(took_s=time.perf_counter() - began_s)
        raise LostWorkersError(f"no worker for exit {exit} behind cut {cut}")

    def expect(self, exit: int, cut: int) -> None:
        """See `Tails`. Changes nothing: workers run chains."""

    def stop(self) -> None:
        """Let all workers go."""
        self._stopping.set()
        self._hiring.shutdown(wait=True, cancel_futures=True)
        while not self._idle.empty():
            self._ray.kill(self._idle.get())

    def _replace(self) -> None:
        """Hire in place of a lost worker, until there is one: what is in the way may pass."""
        while not self._stopping.is_set():
            try:
                self._hire(None)
            except Exception as error:  # noqa: BLE001 - nobody waits for this, and the cluster may raise anything
                _LOG.warning("no worker yet in place of a lost one: %s: %s", type(error).__name__, error)
                self._stopping.wait(RETRY_S)
            else:
                return

    def _hire(self, patience_s: float | None) -> bool:
        """Make a worker, and have it ready before it is given work; false if that takes longer than is allowed."""
        remote = self._ray.remote(num_cpus=1, max_restarts=0, scheduling_strategy="SPREAD")(TailWorker)
        worker = remote.remote()
        ready = worker.begin.remote(self._model, code_digest())
        left_s = patience_s
        while not self._stopping.is_set() and (left_s is None or left_s > 0):
            if self._ray.wait([ready], timeout=_LOOK_S)[0]:
                try:
                    result_of(self._ray, ready)
                except self._ray.exceptions.RayActorError:
                    return self._hire(left_s)
                except BaseException:
                    self._ray.kill(worker)
                    raise
                self._idle.put(worker)
                return True
            left_s = None if left_s is None else left_s - _LOOK_S
        self._ray.kill(worker)
        return False


def _own(crossed: Crossed) -> Crossed:
    """The same as values that can be sent on: a payload may be part of a larger frame."""
    return replace(crossed, payload=bytes(crossed.payload)) if isinstance(crossed, Coded) else dict(crossed)


class TailWorker:
    """A processor on a machine of the cluster."""

    _processor: Processor

    def begin(self, model: tuple[bytes, Sequence[str]], digest: str) -> None:
        """Load the model: the content of an ONNX file, and the outputs that are its exits."""
        from offramp.model.blocks import load_model
        from offramp.model.executor import ChainExecutor

        check_code(digest)
        content, outputs = model
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.onnx"
            file.write_bytes(content)
            self._processor = Processor(ChainExecutor(load_model(file, outputs), threads=1))

    def run_tails(self, exit: int, cut: int, given: Sequence[Crossed]) -> Answered:
        """See `Processor`."""
        return self._processor.run_tails(exit, cut, given)
