"""Every example runs, and prints what its .out file says where it has one; so do the README's commands."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
# What needs a network of its own, or minutes, has tests of its own.
ELSEWHERE = ("offramp edge", "offramp device", "offramp demo", "offramp train")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example(example: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, str(example)], cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False
    )
    assert result.returncode == 0, result.stderr
    expected = example.with_suffix(".out")
    if expected.exists():
        assert result.stdout == expected.read_text()


def test_the_readmes_commands_run(tmp_path: Path) -> None:
    blocks = re.findall(r"```\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    commands = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    commands = [c for c in commands if c.startswith("offramp") and not c.startswith(ELSEWHERE)]
    assert len(commands) >= 6
    for command in commands:
        words = [sys.executable, "-m", *shlex.split(command)]
        result = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
        assert result.returncode == 0, f"{command}\n{result.stderr}"
