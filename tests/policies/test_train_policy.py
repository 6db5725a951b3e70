"""`offramp train-policy` as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from offramp.policies.network_file import read_policy


def offramp(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "offramp", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=110, check=False)


def test_two_runs_give_one_file_that_simulate_takes(tmp_path: Path) -> None:
    words = ("train-policy", "--algorithm", "ddqn-paper", "--target", "plain", "--steps", "2000", "--k", "2")
    first = offramp(tmp_path, *words, "-o", "first", "--json")
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["steps"] == 2000
    second = offramp(tmp_path, *words, "-o", "second")
    assert second.returncode == 0, second.stderr
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    header = read_policy(tmp_path / "first").header
    assert (header.algorithm, header.target) == ("ddqn-paper", "plain")

    assert offramp(tmp_path, "stream", "-o", "two.json", "--k", "2", "--tasks", "20").returncode == 0
    ran = offramp(
        tmp_path, "simulate", "two.json", "--policy", "ddqn-paper", "--policy-file", "first", "--json"
    )
    assert ran.returncode == 0, ran.stderr
    assert len(json.loads(ran.stdout)["tasks"]) == 20

    assert offramp(tmp_path, "stream", "-o", "three.json", "--k", "3", "--tasks", "20").returncode == 0
    refused = offramp(tmp_path, "simulate", "three.json", "--policy", "ddqn-paper", "--policy-file", "first")
    assert refused.returncode == 2
    assert "family" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (("--algorithm", "sarsa"), "algorithm = 'sarsa'"),
        (("--target", "triple"), "target = 'triple'"),
        (("--algorithm", "ddqn-paper", "--steps", "5"), "steps = 5"),
        (("--k", "-1"), "k = -1"),
        (("--resume",), "there is no checkpoint"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(tmp_path: Path, words: tuple[str, ...], field: str) -> None:
    ran = offramp(tmp_path, "train-policy", "-o", "policy", *words)
    assert ran.returncode == 2
    assert field in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
