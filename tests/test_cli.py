"""The command as a user meets it: real processes, exit status, one line for a mistake."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


def offramp(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "offramp", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=cwd, check=False)


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "instance.json"
    result = offramp("stream", "-o", path, "--seed", "4", "--tasks", "30")
    assert result.returncode == 0, result.stderr
    return path


def test_help_names_every_command() -> None:
    result = offramp("--help")
    assert result.returncode == 0
    for command in ("demo", "stream", "simulate", "solve", "compare", "inspect", "edge", "device"):
        assert command in result.stdout


def test_import_loads_nothing_heavy() -> None:
    code = (
        "import sys, offramp, offramp.cli, offramp.policies, offramp.solvers, offramp.simulator\n"
        "heavy = {'torch', 'ray', 'matplotlib', 'numba', 'gymnasium', 'pyarrow', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr


def test_ctrl_c_is_one_line_and_status_130_and_leaves_no_process() -> None:
    drawn = ("--tasks", "30000000", "--devices", "1000", "--edges", "10", "--jobs", "2")
    command = [sys.executable, "-m", "offramp", "simulate", "--policy", "myopic", *drawn]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell's background jobs ignore Ctrl-C, and so would what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        _wait_for_workers(process.pid, 2)
        os.killpg(process.pid, signal.SIGINT)
        # Whatever is left of the workers holds standard output open.
        out, err = process.communicate(timeout=30)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert (process.returncode, out, err) == (130, "", "offramp: stopped\n")


def _wait_for_workers(parent: int, count: int) -> None:
    """Wait until that many spawned workers are past their start, where Ctrl-C is theirs no longer."""
    until_s = time.monotonic() + 60
    children = Path(f"/proc/{parent}/task/{parent}/children")
    while sum(_ignores_ctrl_c(pid) for pid in children.read_text().split()) < count:
        assert time.monotonic() < until_s
        os.sched_yield()


def _ignores_ctrl_c(pid: str) -> bool:
    try:
        if b"spawn_main" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            return False
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    (ignored,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigIgn:"))
    return bool(int(ignored, 16) >> (signal.SIGINT - 1) & 1)


def test_one_seed_gives_the_same_bytes(instance: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.json"
    offramp("stream", "-o", again, "--seed", "4", "--tasks", "30")
    assert again.read_bytes() == instance.read_bytes()
    runs = {
        offramp("simulate", instance, "--policy", "random", "--seed", "1", "--json").stdout for _ in range(2)
    }
    assert len(runs) == 1
    schedule = json.loads(runs.pop())
    assert schedule["format"] == "offramp.schedule/1"
    assert len(schedule["tasks"]) == 30
    compared = {
        offramp("compare", "--policies", "random,myopic", "--seeds", "3", "--tasks", "20", "--json").stdout
        for _ in range(2)
    }
    assert len(compared) == 1
    rows = json.loads(compared.pop())["policies"]
    assert [row["policy"] for row in rows] == ["exact", "random", "myopic"]
    assert rows[0]["gain"] >= rows[2]["gain"] >= rows[1]["gain"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("stream", "-o", "x.json", "--k", "0"), ("k", "0", "greater than 0")),
        (("stream", "-o", "x.json", "--p", "1.5"), ("p", "1.5", "(0, 1]")),
        (("stream", "-o", "nowhere/x.json"), ("output", "nowhere/x.json")),
        (("stream", "-o", "x.json", "--scenario", "none.json"), ("scenario", "none.json")),
        (("simulate", "none.json", "--policy", "myopic"), ("instance", "none.json")),
        (("compare", "--policies", "clever", "--seeds", "1"), ("policies", "clever", "myopic")),
        (("compare", "--timing", "real", "--seeds", "1"), ("timing", "real", "network")),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    arguments: tuple[str, ...], words: tuple[str, ...], tmp_path: Path
) -> None:
    result = offramp(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    for word in words:
        assert word in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_output_says_what_decides_in_a_policys_place(tmp_path: Path) -> None:
    crowd = tmp_path / "crowd.json"
    offramp("stream", "-o", crowd, "--tasks", "10", "--devices", "40")
    result = offramp("simulate", crowd, "--policy", "ddqn", "--json")
    assert "the network knows up to" in json.loads(result.stdout)["notice"]
    few = offramp("simulate", crowd, "--policy", "myopic", "--json")
    assert "notice" not in json.loads(few.stdout)
    compared = offramp(
        "compare", "--policies", "myopic,ddqn", "--seeds", "1", "--tasks", "10", "--devices", "40", "--json"
    )
    notices = {row["policy"]: row["notice"] for row in json.loads(compared.stdout)["policies"]}
    assert notices["myopic"] is None
    assert "the network knows up to" in notices["ddqn"]


def test_a_policy_may_be_told_another_scenario_than_the_tasks_own(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    busy, told = tmp_path / "busy.json", tmp_path / "told.json"
    offramp("stream", "-o", busy, "--tasks", "20", "--p", "0.5")
    told.write_text(json.dumps({"arrivals": {"kind": "bernoulli", "probability": 0.01}}))
    plain = ("simulate", busy, "--policy", "planner", "--json")
    gains = [
        json.loads(offramp(*plain, *more).stdout)["gain"] for more in ((), ("--assume", told, "--no-adapt"))
    ]
    assert gains[0] > gains[1]


def test_an_unknown_policy_lists_the_known(instance: Path) -> None:
    result = offramp("simulate", instance, "--policy", "clever")
    assert result.returncode == 2
    assert "clever" in result.stderr
    assert "myopic" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["compare", "--policies", "greedy,myopic,greedy"], "policies = 'greedy': named once at most"),
        (["compare", "--edge-workers", "2"], "timing = 'paper': must be network with --edge-workers"),
        (["compare", "--link-start-s", "5"], "link-start-s = 5.0: only with --link-trace"),
        (["simulate", "INSTANCE", "--policy", "myopic", "--engine", "ray"], "is played here, by one process"),
        (
            ["simulate", "INSTANCE", "--policy", "myopic", "--policy-file", "x"],
            "only with ddqn or ddqn-paper",
        ),
        (
            ["simulate", "--tasks", "9", "--policy", "myopic", "--policy-file", "x"],
            "only with ddqn or ddqn-pa",
        ),
        (["simulate", "--devices", "99999999999", "--policy", "myopic"], "devices = 99999999999"),
        (["edge", "--port", "0", "--policy-file", "x"], "only with ddqn or ddqn-paper, not planner"),
        (["demo", "--policy-file", "x"], "only with ddqn or ddqn-paper, not planner"),
        (["demo", "--link-start-s", "5"], "link-start-s = 5.0: only with --link-trace"),
        (["demo", "--record", "nowhere/run.json"], "record = 'nowhere/run.json': cannot be written"),
        (["demo", "-o", "INSTANCE"], "cannot be made a folder"),
        (["bench", "-o", "nowhere/bench.json"], "output = 'nowhere/bench.json': cannot be written"),
        (["bench", "-o", "."], "it is a folder"),
        (["bench", "--rates", "1mbit,,10mbit"], "rates = ''"),
        (["figure", "5", "-o", "INSTANCE", "--seeds", "2"], "cannot be made a folder"),
    ],
)
def test_what_would_do_nothing_or_be_lost_is_refused_before_anything_runs(
    arguments: list[str], says: str, instance: Path, tmp_path: Path
) -> None:
    given = [str(instance) if argument == "INSTANCE" else argument for argument in arguments]
    result = offramp(*given, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.strip()]
    assert says in line
    assert result.stdout == ""
