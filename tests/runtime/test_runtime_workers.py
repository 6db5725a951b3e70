"""Several workers and batches on one edge: the answers, and the accounts of real processes."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_runtime_processes import balanced, running, share

from offramp.model.bundle import load_bundle
from offramp.model.codecs import find_codec
from offramp.model.executor import ChainExecutor
from offramp.model.inputs import random_inputs
from offramp.runtime.edge_job import Batch, Run, Work
from offramp.runtime.edge_workers import AT_HAND_S, LONGEST_BLANK_S, Computing, Workers
from offramp.runtime.processor import Answered, Coded, Crossed, Processor
from offramp.task import Decision


@pytest.fixture(scope="module")
def executor() -> ChainExecutor:
    return ChainExecutor(load_bundle(None).model, threads=1)


def test_workers_take_calls_in_order_and_end_when_those_under_way_have() -> None:
    Workers(2, "idle").stop()
    workers, done = Workers(1, "worker"), []
    all_done, may_end = threading.Event(), threading.Event()

    def last() -> None:
        all_done.set()
        assert may_end.wait(30)
        done.append(10)

    for number in range(10):
        workers.submit(lambda number=number: done.append(number))
    workers.submit(last)
    assert all_done.wait(30)
    threading.Thread(target=may_end.set).start()
    workers.stop()
    assert done == list(range(11))
    assert not any(thread.name.startswith("worker_") for thread in threading.enumerate())


@given(data=st.data(), sizes=st.lists(st.integers(1, 5), min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_tasks_that_run_together_get_their_own_answers(
    executor: ChainExecutor, data: st.DataObject, sizes: list[int]
) -> None:
    exit = data.draw(st.integers(1, len(executor.exits)))
    cut = data.draw(st.integers(0, executor.layers(exit) - 1))
    specs, rng = executor.boundary(exit, cut), np.random.default_rng(data.draw(st.integers(0, 99)))
    given_, plain = [], []
    for size in sizes:
        tensors = executor.run_head(exit, cut, random_inputs(executor.boundary(exit, 0), size, rng))
        crossed: Crossed = tensors
        if cut > 0 and data.draw(st.booleans()):
            codec = find_codec("fp16")
            crossed = Coded("fp16", codec.encode(tensors, specs), size)
            tensors = codec.decode(crossed.payload, specs, size)
        given_.append(crossed)
        plain.append(tensors)
    damaged = data.draw(st.integers(-1, len(sizes) - 1))
    if damaged >= 0:
        given_[damaged] = Coded("fp16", b"no payload", sizes[damaged])

    answered = Processor(executor).run_tails(exit, cut, given_)

    assert answered.output == executor.boundary(exit, executor.layers(exit))[0].name
    for number, (tensors, logits) in enumerate(zip(plain, answered.logits, strict=True)):
        if number == damaged:
            assert logits is None
            continue
        assert logits is not None
        np.testing.assert_allclose(logits, executor.run_tail(exit, cut, tensors), rtol=1e-4, atol=1e-4)


class Noting(Processor):
    """A processor of a clock's seconds, which notes what it runs for nothing."""

    def __init__(self, executor: ChainExecutor, took_s: float) -> None:
        super().__init__(executor)
        self.took_s = took_s
        self.blanks: list[tuple[int, int]] = []
        self.refuses = False

    def run_tails(self, exit: int, cut: int, given: Sequence[Crossed]) -> Answered:
        return super().run_tails(exit, cut, given)._replace(took_s=self.took_s)

    def run_blank(self, exit: int, cut: int) -> None:
        if self.refuses:
            raise RuntimeError("indices out of range")
        super().run_blank(exit, cut)
        self.blanks.append((exit, cut))


@pytest.mark.parametrize(
    ("devices", "took_s", "blanks"), [(1, 0.001, 2), (1, 5 * LONGEST_BLANK_S, 0), (2, 0.0001, 0)]
)
def test_a_lone_device_that_is_due_finds_its_tail_at_hand(
    executor: ChainExecutor, devices: int, took_s: float, blanks: int
) -> None:
    """What its last task had, if one input of it takes no time to speak of, and it has rested for a while."""
    now_s, processor = [5.0], Noting(executor, took_s)
    ran: list[Answered | None] = []
    computing = Computing(
        processor, 1, 1, lambda: devices, lambda batch, made: ran.append(made), lambda: now_s[0]
    )
    computing.keep_at_hand()
    assert processor.blanks == []
    inputs = random_inputs(executor.boundary(2, 0), 4, np.random.default_rng(0))
    work = Work(b"", 0, Decision(2, 0), 4, took_s, 0.0, 1.0, inputs, unasked_s=1.0)

    async def compute() -> None:
        computing.begin(Run(Batch((work,), 5.0, 0.0001), [inputs]))
        while not ran:
            await asyncio.sleep(0)

    asyncio.run(compute())
    computing.keep_at_hand()
    assert processor.blanks == []
    for _ in range(2):
        now_s[0] += 1.1 * AT_HAND_S
        computing.keep_at_hand()
        computing.keep_at_hand()
    assert processor.blanks == [(2, 0)] * blanks
    now_s[0] += 1.1 * AT_HAND_S
    processor.refuses = True
    computing.keep_at_hand()
    assert len(processor.blanks) == blanks
    computing.stop()


@pytest.mark.parametrize("stopped", [False, True], ids=["to the end", "told to stop"])
def test_an_edge_with_workers_and_batches_accounts_for_every_task(tmp_path: Path, stopped: bool) -> None:
    """Three devices send more than one worker can do; in one run the edge drains with tasks in its hands."""
    tasks_file = share(tmp_path / "share.npz", tasks=60, gap_s=0.01, size=6, budget_s=0.3)
    options = ["--port", "0", "--policy", "edge-only", "--supervised", "--workers", "2", "--max-batch", "4"]
    with running("edge", *options) as edge, ExitStack() as started:
        address = f"127.0.0.1:{edge.event('ready')['port']}"
        device = ["device", "--edge", address, "--tasks-file", str(tasks_file), "--slowdown", "4"]
        devices = [
            started.enter_context(running(*device, "--id", f"d{number}", "--rate", "40mbit", "--supervised"))
            for number in range(3)
        ]
        for each in devices:
            each.event("ready")
        start_s = time.monotonic() + 0.1
        for each in devices:
            each.order(start_s=start_s)
        if stopped:
            devices[0].event("task")
            edge.process.send_signal(signal.SIGTERM)
        summaries = [each.event("done")["summary"] for each in devices]
        assert [each.finish()[0] for each in devices] == [0, 0, 0]
        edge.process.send_signal(signal.SIGTERM)
        counts = edge.event("done")
        assert edge.finish()[0] == 0
    assert all(balanced(summary) and summary["submitted"] == 60 for summary in summaries)
    assert sum(summary["failed"] for summary in summaries) == 0
    assert counts["announced"] == counts["decided"] + sum(counts["turned_away"].values())
    assert 0 < counts["runs"] <= counts["answered"] <= counts["decided"]
