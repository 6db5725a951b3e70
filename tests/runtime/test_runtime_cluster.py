"""An edge whose tails are computed by a Ray cluster of two nodes: what is lost there costs no task."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from test_runtime_processes import ENDS, balanced, device_arguments, running, share

from offramp.errors import OfframpError
from offramp.model.bundle import load_bundle
from two_nodes import TwoNodes, installed

# What Ray itself leaves behind when a node is killed is not ours to close.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@installed
def test_an_edge_on_a_cluster_loses_no_task_with_a_worker(nodes: TwoNodes, tmp_path: Path) -> None:
    """One worker is killed under load, then a machine with another; every task ends, and the edge drains."""
    tasks = 150
    tasks_file = share(tmp_path / "share.npz", tasks=tasks, gap_s=0.04)
    arguments = ["edge", "--port", "0", "--policy", "edge-only", "--workers", "2", "--supervised"]
    with running(*arguments, "--engine", "ray", "--address", nodes.address) as edge:
        address = f"127.0.0.1:{edge.event('ready')['port']}"
        with running(*device_arguments(address, tasks_file)) as device:
            device.event("ready")
            device.order(start_s=time.monotonic() + 0.1)
            records = []
            while len(records) < tasks:
                records.append(device.event("task")["record"])
                if len(records) == 40:
                    os.kill(tail_workers()[0], signal.SIGKILL)
                if len(records) == 90:
                    nodes.kill_second()
            summary = device.event("done")["summary"]
            assert device.finish()[0] == 0
        edge.process.send_signal(signal.SIGTERM)
        counts = edge.event("done")
        status, _, _ = edge.finish()
    assert status == 0
    assert summary["submitted"] == tasks
    assert balanced(summary)
    assert counts["answered"] > tasks // 4
    assert sorted(record["sequence"] for record in records) == list(range(tasks))
    assert all(record["end"] in ENDS for record in records)
    assert summary["on_time"] + summary["late"] >= 0.8 * tasks
    # Ray ends the workers of a program that is gone, in its own time.
    patience_s = time.monotonic() + 20.0
    while tail_workers() and time.monotonic() < patience_s:
        pass
    assert not tail_workers()


def tail_workers() -> list[int]:
    """Processes of this machine that are workers of such an edge."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if file.read_bytes().startswith(b"ray::TailWorker"):
                found.append(int(file.parent.name))
    return found


@installed
def test_a_pool_answers_as_one_processor_and_outlives_its_workers(nodes: TwoNodes) -> None:
    from offramp.cluster import cluster
    from offramp.model.executor import ChainExecutor
    from offramp.model.inputs import random_inputs
    from offramp.remote_tails import RemoteTails
    from offramp.runtime.processor import Processor

    model = load_bundle(None).model
    executor = ChainExecutor(model)
    inputs = random_inputs(model.inputs, 3, np.random.default_rng(0))
    with cluster(nodes.address) as ray:
        tails = RemoteTails(ray, model, 2)
        local = Processor(executor).run_tails(2, 1, [executor.run_head(2, 1, inputs)])
        for loss in range(3):
            remote = tails.run_tails(2, 1, [executor.run_head(2, 1, inputs)])
            np.testing.assert_array_equal(remote.logits[0], local.logits[0])
            assert remote.output == local.output
            if loss < 2:
                os.kill(tail_workers()[0], signal.SIGKILL)
        tails.stop()


@installed
def test_a_pool_that_does_not_fit_is_refused(nodes: TwoNodes, monkeypatch: pytest.MonkeyPatch) -> None:
    from offramp import remote_tails
    from offramp.cluster import cluster

    monkeypatch.setattr(remote_tails, "HIRE_S", 6.0)
    with (
        cluster(nodes.address) as ray,
        pytest.raises(OfframpError, match="workers = 3: the cluster has room for 2"),
    ):
        remote_tails.RemoteTails(ray, load_bundle(None).model, 3)
