"""Weights are in memory once: measured in processes of their own, on a network whose weights are most of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from networks import Network

MEGABYTE = 1 << 20
SIDE = 1536  # 9 MB of weights in each product

MEASURE = """
import sys
from pathlib import Path
import numpy as np
from offramp.model.blocks import load_model
from offramp.model.executor import ChainExecutor, WholeModel

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

small, large, what = sys.argv[1:]
ChainExecutor(load_model(Path(small)))  # what the runtime itself takes
before = resident()
model = load_model(Path(large))
inputs = {"x": np.ones((1, 64), np.float32)}
if what == "whole":
    runner, exits = WholeModel(model), [len(model.exits)]
else:
    runner = ChainExecutor(model, exits=None if what == "all" else [int(e) for e in what.split(",")])
    exits = runner.exits
for exit in exits:
    runner.run(exit, inputs)
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_chains_hold_weights_once_and_only_those_they_need(
    tmp_path: Path, model_files: dict[str, Path]
) -> None:
    net = Network()
    x = net.linear(net.input("x", ["batch", 64]), 64, SIDE)
    for exit in range(4):
        x = net.op("Relu", net.linear(x, SIDE, SIDE))
        net.output(net.linear(x, SIDE, 10), f"exit{exit + 1}")
    path = tmp_path / "large.onnx"
    path.write_bytes(net.build().SerializeToString())

    def measured(what: str) -> int:
        command = [sys.executable, "-c", MEASURE, str(model_files["one_output"]), str(path), what]
        result = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
        return int(result.stdout)

    whole, everything, half = measured("whole"), measured("all"), measured("1,2")
    weights = path.stat().st_size
    assert everything <= 1.3 * whole + MEGABYTE
    # Half the products, half the memory: what all of them take beyond it is about the other half.
    assert everything - half >= 0.4 * weights
    assert half <= 0.65 * everything
