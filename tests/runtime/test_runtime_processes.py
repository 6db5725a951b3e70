"""Real edge and device processes on loopback, real signals; nothing is left running and no task is lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offramp.model.bundle import load_bundle
from offramp.runtime.outcomes import End
from offramp.runtime.replay import load_run, replay
from offramp.runtime.samples import samples_for
from offramp.runtime.workload import PlannedTask, save_share

ENDS = [str(end) for end in End]
PATIENCE_S = 50.0


class Running:
    """An `offramp` process, or one that runs `code`, in a session of its own, read line by line."""

    def __init__(self, *arguments: str, code: str | None = None) -> None:
        environment = {key: value for key, value in os.environ.items() if key != "OFFRAMP_DATA"}
        self.process = subprocess.Popen(
            [sys.executable, *(("-m", "offramp") if code is None else ("-c", code)), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment | {"HF_HUB_OFFLINE": "1"},
            start_new_session=True,
            # A shell's background jobs ignore Ctrl-C, and so would what they start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def event(self, kind: str) -> dict[str, Any]:
        """The next event of this kind; others are skipped."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event: dict[str, Any] = json.loads(line)
            if event["event"] == kind:
                return event
        raise AssertionError(f"ended without {kind}: {self.finish()}")

    def order(self, **order: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    def finish(self) -> tuple[int, str, str]:
        """Status, standard output and standard error of a process that ends by itself."""
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out, err


@contextmanager
def running(*arguments: str, code: str | None = None) -> Iterator[Running]:
    process = Running(*arguments, code=code)
    try:
        yield process
    finally:
        if process.process.poll() is None:
            os.killpg(process.process.pid, signal.SIGKILL)
        process.process.communicate()


@contextmanager
def an_edge(policy: str = "edge-only") -> Iterator[tuple[Running, str]]:
    with running("edge", "--port", "0", "--policy", policy, "--supervised") as edge:
        yield edge, f"127.0.0.1:{edge.event('ready')['port']}"


def share(path: Path, tasks: int, gap_s: float, size: int = 2, budget_s: float = 0.4) -> Path:
    """A device's recorded share: equal tasks at equal distances, on generated images."""
    rng = np.random.default_rng(0)
    samples = samples_for(load_bundle(None), None, rng)
    rows = [rng.integers(len(samples), size=size) for _ in range(tasks)]
    save_share(path, [PlannedTask(n * gap_s, budget_s, row) for n, row in enumerate(rows)], samples)
    return path


@pytest.fixture(autouse=True)
def _no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OFFRAMP_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def device_arguments(address: str, tasks_file: Path, name: str = "d0") -> list[str]:
    return [
        *("device", "--edge", address, "--id", name, "--tasks-file", str(tasks_file)),
        *("--slowdown", "4", "--rate", "4mbit", "--supervised"),
    ]


def balanced(summary: dict[str, Any]) -> bool:
    return bool(summary["submitted"] == sum(summary[end] for end in ENDS))


def test_the_demo_accounts_for_every_task(tmp_path: Path) -> None:
    arguments = [
        "demo",
        "--tasks",
        "20",
        "--devices",
        "2",
        "--k",
        "12",
        "--json",
        "-o",
        str(tmp_path / "out"),
    ]
    with running(*arguments, "--policy", "edge-only") as demo:
        status, out, err = demo.finish()
    assert status == 0, err
    summary = json.loads(out)
    assert summary["submitted"] == 20
    assert balanced(summary)
    assert summary["failed"] == 0
    assert summary["accuracy"] is None
    assert "generated images" in err
    # With four times the usual budget an edge-only task is in time even on a busy machine, mostly.
    assert summary["on_time"] >= 10
    assert set(summary["cuts"]) == {"0"} or summary["local_fallbacks"]
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert len(run["tasks"]) == len(run["instance"]["tasks"]) == 20
    for record, task in zip(run["tasks"], run["instance"]["tasks"], strict=True):
        assert (record["size"], record["device"]) == (task["size"], task["device"])
        assert record["arrival_s"] == pytest.approx(task["arrival_s"])
        if record["end"] == "on_time":
            assert record["measured"]["finish_s"] <= task["arrival_s"] + task["budget_s"] + 1e-9
            assert len(record["labels"]) == task["size"]
        if record["link_start_s"] is not None and record["sent_s"] is not None:
            # The shaped link is not faster than its rate: 3072 bytes an image at 125000 bytes a second.
            taken_s = record["sent_s"] - record["link_start_s"]
            assert taken_s >= 3072 * task["size"] / 125_000.0 - 1e-3
    assert (tmp_path / "out" / "run.svg").read_text().rstrip().endswith("</svg>")


def _with_outages(path: Path) -> None:
    """A recording of 1 Mbit/s that stands still for 0.7 of its 1.9 seconds."""
    path.write_text("".join(f"{instant}\n" for instant in [*range(12, 1201, 12), 1900]))


def test_the_devices_of_a_demo_replay_a_recorded_link_and_so_does_its_replay(tmp_path: Path) -> None:
    trace, out = tmp_path / "uplink.up", tmp_path / "out"
    _with_outages(trace)
    arguments = [
        "demo",
        "--tasks",
        "30",
        "--devices",
        "2",
        "--p",
        "0.1",
        "--k",
        "60",
        "--policy",
        "edge-only",
    ]
    with running(*arguments, "--link-trace", str(trace), "--json", "-o", str(out)) as demo:
        status, _, err = demo.finish()
    assert status == 0, err
    run = load_run(out / "run.json")
    assert run.links is not None
    assert run.links.recording.instants_ms.tolist() == [*range(12, 1201, 12), 1900]
    mean = run.links.recording.bandwidth_bytes_per_s
    assert run.instance.system.bandwidth_bytes_per_s == (mean, mean)
    crossed = 0
    for device, link in enumerate(run.links.links(run.instance.system)):
        own = [
            record
            for record, task in zip(run.records, run.instance.tasks, strict=True)
            if task.device == device
        ]
        for record in sorted(own, key=lambda record: record.link_start_s or 0.0):
            if record.link_start_s is not None and record.sent_s is not None:
                # Each device is at its own place of the recording, which lets nothing cross sooner.
                assert record.sent_s >= link.carry(record.link_start_s, 3072 * record.size) - 1e-3
                crossed += 1
    assert crossed >= 15
    report = replay(run)
    both = [
        (row["measured"]["link_s"], row["simulated"]["link_s"])
        for row in report["tasks"]
        if row["measured"]["link_s"] is not None and row["simulated"]["link_s"] is not None
    ]
    # At the mean rate no upload takes as long as the pause; in the recording, and its replay, some do.
    assert max(3072 * task.size for task in run.instance.tasks) / mean < 0.7
    assert max(measured_s for measured_s, _ in both) > 0.7
    assert max(simulated_s for _, simulated_s in both) > 0.7


def test_a_recorded_link_is_tried_before_anything_is_uploaded_over_it(tmp_path: Path) -> None:
    """With the caution that a new link is met with nothing would ever be: the probes of real devices must do it."""
    trace, out = tmp_path / "uplink.up", tmp_path / "out"
    trace.write_text("".join(f"{instant}\n" for instant in range(1, 2001)))
    arguments = ["demo", "--tasks", "30", "--devices", "1", "--p", "0.2", "--policy", "myopic"]
    with running(*arguments, "--link-trace", str(trace), "--json", "-o", str(out)) as demo:
        status, _, err = demo.finish()
    assert status == 0, err
    uploads = [record for record in load_run(out / "run.json").records if record.sent_s is not None]
    assert len(uploads) >= 15
    assert min(record.sequence for record in uploads) < 5


@pytest.mark.parametrize("content", ["", "5\n3\n", "fast\n", "0\n"])
def test_a_demo_over_what_is_no_recording_is_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "bad.up").write_text(content)
    with running("demo", "--link-trace", str(tmp_path / "bad.up"), "-o", str(tmp_path / "out")) as process:
        _refused(process, "link-trace")
    assert not (tmp_path / "out").exists()


def test_a_device_loses_no_task_when_its_edge_is_killed(tmp_path: Path) -> None:
    tasks_file = share(tmp_path / "share.npz", tasks=40, gap_s=0.1)
    with an_edge() as (edge, address), running(*device_arguments(address, tasks_file)) as device:
        device.event("ready")
        device.order(start_s=time.monotonic() + 0.1)
        while device.event("task")["record"]["sequence"] < 8:
            pass
        edge.process.kill()
        killed_s = time.monotonic()
        records = [event["record"] for event in _tasks(device, until=39)]
        summary = device.event("done")["summary"]
        assert device.finish()[0] == 0
    assert summary["submitted"] == 40
    assert balanced(summary)
    assert killed_s > 0
    # Once the loss is noticed, the device computes by itself, in time.
    after = [record for record in records if record["sequence"] >= 20]
    assert after
    assert all(record["local"] for record in after if record["end"] == "on_time")
    assert sum(record["end"] == "on_time" for record in after) >= 0.8 * len(after)


def test_a_device_goes_back_to_an_edge_that_comes_back(tmp_path: Path) -> None:
    tasks_file = share(tmp_path / "share.npz", tasks=400, gap_s=0.1)
    with an_edge() as (edge, address):
        port = address.rpartition(":")[2]
        with running(*device_arguments(address, tasks_file)) as device:
            device.event("ready")
            device.order(start_s=time.monotonic() + 0.1)
            device.event("task")
            edge.process.kill()
            edge.process.wait()
            while not device.event("task")["record"]["local"]:
                pass
            with running("edge", "--port", port, "--policy", "edge-only", "--supervised") as second:
                second.event("ready")
                while True:
                    if device.event("task")["record"]["measured"]["edge_start_s"] is not None:
                        break
                device.process.send_signal(signal.SIGTERM)
                summary = device.event("done")["summary"]
    assert balanced(summary)


def test_a_hung_edge_is_noticed(tmp_path: Path) -> None:
    tasks_file = share(tmp_path / "share.npz", tasks=60, gap_s=0.1)
    with an_edge() as (edge, address), running(*device_arguments(address, tasks_file)) as device:
        device.event("ready")
        start_s = time.monotonic() + 0.1
        device.order(start_s=start_s)
        device.event("task")
        os.kill(edge.process.pid, signal.SIGSTOP)
        hung_s = time.monotonic() - start_s
        try:
            records = [event["record"] for event in _tasks(device, until=59)]
            summary = device.event("done")["summary"]
        finally:
            os.kill(edge.process.pid, signal.SIGCONT)
    assert balanced(summary)
    later = [record for record in records if record["arrival_s"] > hung_s + 1.0]
    assert len(later) > 20
    assert sum(record["end"] == "on_time" for record in later) >= 0.8 * len(later)


def test_an_edge_that_is_told_to_stop_finishes_what_it_has_taken(tmp_path: Path) -> None:
    tasks_file = share(tmp_path / "share.npz", tasks=30, gap_s=0.1)
    with an_edge() as (edge, address), running(*device_arguments(address, tasks_file)) as device:
        device.event("ready")
        device.order(start_s=time.monotonic() + 0.1)
        device.event("task")
        edge.process.send_signal(signal.SIGTERM)
        counts = edge.event("done")
        assert edge.finish()[0] == 0
        summary = device.event("done")["summary"]
    assert balanced(summary)
    assert summary["failed"] == 0
    assert counts["decided"] >= counts["answered"] > 0


def test_a_device_that_is_told_to_stop_ends_what_it_has_taken_on(tmp_path: Path) -> None:
    tasks_file = share(tmp_path / "share.npz", tasks=500, gap_s=0.05)
    with an_edge() as (_, address), running(*device_arguments(address, tasks_file)) as device:
        device.event("ready")
        device.order(start_s=time.monotonic() + 0.1)
        device.event("task")
        device.process.send_signal(signal.SIGINT)
        summary = device.event("done")["summary"]
        assert device.finish()[0] == 0
    assert 1 <= summary["submitted"] < 500
    assert balanced(summary)
    assert summary["failed"] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_a_demo_that_is_stopped(tmp_path: Path, number: int) -> None:
    arguments = ["demo", "--tasks", "2000", "--json", "-o", str(tmp_path / "out")]
    with running(*arguments) as demo:
        children = _wait_for_children(demo.process.pid, count=4)
        demo.process.send_signal(number)
        status, _, err = demo.finish()
        deadline_s = time.monotonic() + 20
        while alive := [pid for pid in children if _is_alive(pid)]:
            assert time.monotonic() < deadline_s, f"still running: {alive}"
            os.sched_yield()
    assert status == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[signal.Signals(number)]
    notice, *more = err.splitlines()
    assert "generated images" in notice
    assert more == (["offramp: stopped"] if number == signal.SIGINT else [])
    assert not (tmp_path / "out" / "run.json").exists()


ENDLESS = """
import sys
from pathlib import Path

import numpy as np

from offramp.model.bundle import load_bundle
from offramp.runtime.demo import run_demo
from offramp.runtime.demo_processes import DemoSettings
from offramp.runtime.samples import samples_for
from offramp.scenario import Scenario

scenario = Scenario(tasks=2000)
settings = DemoSettings(scenario, scenario, None, "myopic", None, True, 0)
bundle = load_bundle(None)
samples = samples_for(bundle, None, np.random.default_rng(0))
try:
    run_demo(settings, bundle, samples, lambda doing, ended, record: print(doing, ended, flush=True))
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped_at_its_tasks_ends_without_a_word(number: int, status: int) -> None:
    with running(code=ENDLESS) as run:
        assert run.process.stdout is not None
        assert any(line == "running 1\n" for line in run.process.stdout)
        run.process.send_signal(number)
        ended, _, err = run.finish()
    assert (ended, err) == (status, "")


def test_a_second_device_of_one_id_is_refused(tmp_path: Path) -> None:
    tasks_file = share(tmp_path / "share.npz", tasks=1, gap_s=0.1)
    with an_edge() as (_, address), running(*device_arguments(address, tasks_file)) as first:
        first.event("ready")
        with running(*device_arguments(address, tasks_file)) as second:
            _refused(second, "id-in-use = 'd0'")


def test_a_busy_port_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with running("edge", "--port", str(port)) as edge:
            _refused(edge, f"port = {port}")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["edge", "--policy", "nonesuch"], "policy = 'nonesuch'"),
        (["edge", "--host", "0.0.0.0"], "host = '0.0.0.0'"),
        (["edge", "--bundle", "/nonexistent"], "bundle = '/nonexistent'"),
        (["device", "--edge", "nowhere", "--id", "a"], "edge = 'nowhere'"),
        (["device", "--edge", "10.0.0.1:7077", "--id", "a"], "edge = '10.0.0.1'"),
        (["device", "--edge", "127.0.0.1:1", "--id", "a"], "edge = '127.0.0.1:1'"),
        (["device", "--edge", "127.0.0.1:1", "--id", "a/b"], "id = 'a/b'"),
        (["device", "--edge", "127.0.0.1:1", "--id", "a", "--k", "0"], "k"),
        (["device", "--edge", "127.0.0.1:1", "--id", "a", "--p", "1.5"], "probability"),
        (["device", "--edge", "127.0.0.1:1", "--id", "a", "--rate", "fast"], "rate = 'fast'"),
        (["device", "--edge", "127.0.0.1:1", "--id", "a", "--slowdown", "0.5"], "slowdown = 0.5"),
        (["device", "--edge", "127.0.0.1:1", "--id", "a", "--data", "/nonexistent"], "data = '/nonexistent'"),
        (["demo", "--policy", "nonesuch"], "policy = 'nonesuch'"),
        (["demo", "--k", "0"], "k"),
        (["demo", "--devices", "0"], "devices"),
        (["demo", "--data", "/nonexistent"], "data = '/nonexistent'"),
        (["demo", "--tasks", "0"], "tasks"),
        (["demo", "--link-trace", "/nonexistent"], "link-trace = '/nonexistent'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments: list[str], says: str, tmp_path: Path) -> None:
    more = ["-o", str(tmp_path / "out")] if arguments[0] == "demo" else []
    with running(*arguments, *more) as process:
        _refused(process, says)
    assert not (tmp_path / "out").exists()


def test_a_bundle_that_was_tampered_with_is_refused(tmp_path: Path) -> None:
    source = Path(str(load_bundle(None).path))
    for file in source.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    model = tmp_path / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"\x00")
    with running("edge", "--bundle", str(tmp_path)) as edge:
        _refused(edge, "hash of")


def _refused(process: Running, says: str) -> None:
    status, out, err = process.finish()
    assert status == 2, (out, err)
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert says in lines[0]


def _tasks(device: Running, until: int) -> Iterator[dict[str, Any]]:
    left = until
    while left >= 0:
        event = device.event("task")
        yield event
        if event["record"]["sequence"] == until:
            return
        left -= 1


def _wait_for_children(parent: int, count: int) -> list[int]:
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        listed = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        # The processes that matter are past their own start: they run offramp, not a copy of their parent.
        found = [int(pid) for pid in listed if b"--supervised" in _command(int(pid))]
        if len(found) >= count:
            return found
        assert time.monotonic() < deadline_s, f"{len(found)} of {count} processes"
        os.sched_yield()


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _is_alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
