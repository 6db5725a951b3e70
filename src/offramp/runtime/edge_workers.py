"""Who computes what on the edge: worker threads, or the event loop's own thread what is short."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable

from offramp.runtime.edge_job import Batch, Run
from offramp.runtime.processor import Answered, Processor, Tails

LONE_DEVICE_AT_ONCE_S = 0.02
"""As below, for a lone worker of a lone device: there is nobody else who could wait meanwhile."""
AT_ONCE_S = 0.0003
"""What is predicted to take less the event loop's thread computes itself: to hand it over and back takes as long."""
ALONE_AT_ONCE_S = 0.0004
"""The same for a lone worker, which waits for nobody between two tasks. What takes longer is worth a processor of its
own, with the event loop's work on another."""
BATCHING_AT_ONCE_S = 0.002
"""The same for a lone worker that runs tasks together: what comes in meanwhile makes the next batch the larger."""
TURN_S = 0.001
"""How long the event loop's thread may go on computing before it looks for what has come."""
AT_HAND_S = 0.001
"""How long what a tail needs stays in the processor's caches while others use them, at least."""
LONGEST_BLANK_S = 0.001
"""A tail that takes longer for one input is not run for nothing: its next task may be there before it is done."""
Call = Callable[[], None]
_LOG = logging.getLogger(__name__)


class Computing:
    """Runs batches, and tells `ran` on the event loop what came of them; None if they have failed.

    `devices` says how many are connected.
    """

    def __init__(
        self,
        processor: Tails,
        workers: int,
        max_batch: int,
        devices: Callable[[], int],
        ran: Callable[[Batch, Answered | None], None],
        clock: Callable[[], float],
    ) -> None:
        self._processor = processor
        self._workers = workers
        self._max_batch = max_batch
        self._devices = devices
        self._ran = ran
        self._clock = clock
        self._threads = Workers(workers, "edge-compute")
        self._here: deque[Run] = deque()
        self._last: tuple[int, int] | None = None
        self._ended_s = 0.0

    def begin(self, run: Run) -> bool:
        """Have a batch computed; whether a thread of its own does that."""
        if run.batch.apart or run.batch.takes_s >= self._at_once_s():
            self._hand_over(run)
            return True
        first = not self._here
        self._here.append(run)
        if first and self._alone(run):
            self._compute_here()
        elif first:
            # Behind whatever has come meanwhile, so that the queue is where tasks wait, not their sockets.
            asyncio.get_running_loop().call_soon(self._compute_here)
        return False

    def expect(self, exit: int, cut: int) -> None:
        """A task is going to have the tail of this exit and cut."""
        self._processor.expect(exit, cut)

    def keep_at_hand(self) -> None:
        """Run the last tail again on a blank input, so that the next task does not wait for its weights.

        For a lone device that says that a task is due, and has none. They leave the caches within milliseconds; a
        tail of three takes 0.3 ms more then.
        """
        if self._last is None or self._devices() > 1 or not isinstance(self._processor, Processor):
            return
        if self._clock() < self._ended_s + AT_HAND_S:
            return
        try:
            self._processor.run_blank(*self._last)
        except Exception:  # noqa: BLE001 - not every tail takes any values, as indices: tasks go on without
            _LOG.warning("exit %d behind cut %d does not run on a blank input", *self._last, exc_info=True)
            self._last = None
        self._ended_s = self._clock()

    def stop(self) -> None:
        """Compute no more, and wait for the threads."""
        self._processor.stop()
        self._threads.stop()

    def _at_once_s(self) -> float:
        """What takes less is computed by the event loop's thread."""
        if isinstance(self._processor, Processor):
            if self._workers > 1:
                return AT_ONCE_S
            if self._devices() <= 1:
                return LONE_DEVICE_AT_ONCE_S
            return BATCHING_AT_ONCE_S if self._max_batch > 1 else ALONE_AT_ONCE_S
        return 0.0  # on another machine nothing is done in no time

    def _alone(self, run: Run) -> bool:
        """Whether nothing else can have come: a device begins unasked only what finds it idle."""
        return self._devices() <= 1 and all(work.unasked_s is not None for work in run.batch.works)

    def _hand_over(self, run: Run) -> None:
        loop = asyncio.get_running_loop()

        def compute() -> None:
            made = self._compute(run)
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
                loop.call_soon_threadsafe(self._ran, run.batch, made)

        self._threads.submit(compute)

    def _compute_here(self) -> None:
        """What is done in no time, and what is next behind it, for as long as sockets can wait."""
        # What may be run together waits for what has come meanwhile.
        until_s = self._clock() + (TURN_S if self._max_batch == 1 else 0.0)
        while True:
            # It stays until it is done, so that nobody calls for this again meanwhile.
            run = self._here[0]
            answered = self._compute(run)
            self._note(run.batch, answered)
            self._ran(run.batch, answered)
            self._here.popleft()
            if not self._here:
                return
            if self._clock() >= until_s:
                asyncio.get_running_loop().call_soon(self._compute_here)
                return

    def _note(self, batch: Batch, answered: Answered | None) -> None:
        """Remember what this thread has computed, if it is short enough to be run for nothing."""
        inputs = sum(work.size for work in batch.works)
        short = answered is not None and answered.took_s <= LONGEST_BLANK_S * inputs
        decision = batch.works[0].decision
        self._last = (decision.exit, decision.cut) if short else None
        self._ended_s = self._clock()

    def _compute(self, run: Run) -> Answered | None:
        """Called by a worker's thread, or by the loop's for what is done in no time. None if it fails."""
        decision = run.batch.works[0].decision
        try:
            return self._processor.run_tails(decision.exit, decision.cut, run.crossed)
        except Exception:  # noqa: BLE001 - whatever the runtime library raises, only these tasks have failed
            _LOG.exception("%d tasks failed on the edge", len(run.batch.works))
            return None


class Workers:
    """`count` threads, which start with the first call. A call must not raise.

    `concurrent.futures` costs about 40 µs for each call more, most of it for a result that nobody here waits for.
    """

    def __init__(self, count: int, name: str) -> None:
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}_{number}", daemon=True)
            for number in range(count)
        ]
        self._started = False

    def submit(self, call: Call) -> None:
        """Have it called by the next free thread."""
        if not self._started:
            self._started = True
            for thread in self._threads:
                thread.start()
        self._calls.put(call)

    def stop(self) -> None:
        """Forget the calls that nobody has begun, and wait for those that are under way."""
        if not self._started:
            return
        while not self._calls.empty():
            self._calls.get()
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
