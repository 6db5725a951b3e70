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


HOT = """
import sys
from pathlib import Path
import numpy as np
from offramp.model.blocks import load_model
from offramp.model.executor import ChainExecutor, WholeModel
from offramp.model.hot_tails import RECENT, HotTails
from offramp.model.pool import WeightPool
from offramp.runtime.memory import give_back

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

give_back()
small, large, what = sys.argv[1:]
ChainExecutor(load_model(Path(small)), pool=WeightPool())
before = resident()
model = load_model(Path(large))
inputs = {"x": np.ones((1, 64, 4, 4), np.float32)}
if what == "whole":
    whole = WholeModel(model)
    whole.run(len(model.exits), inputs)
else:
    pool = WeightPool()
    tails = HotTails(ChainExecutor(model, pool=pool), pool)
    for _ in range(RECENT):
        tails.run_tail(len(model.exits), 0, inputs)
    tails.settle()
    tails.run_tail(len(model.exits), 0, inputs)
    assert (tails.hot is not None) == (what == "hot")
print(resident() - before)
"""


def measured(program: str, *arguments: str | Path) -> int:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    return int(result.stdout)


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

    whole, everything, half = (
        measured(MEASURE, model_files["one_output"], path, what) for what in ("whole", "all", "1,2")
    )
    weights = path.stat().st_size
    assert everything <= 1.3 * whole + MEGABYTE
    # Half the products, half the memory: what all of them take beyond it is about the other half.
    assert everything - half >= 0.4 * weights
    assert half <= 0.65 * everything


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_a_hot_tail_shares_its_weights_with_the_chain(tmp_path: Path, model_files: dict[str, Path]) -> None:
    net = Network()
    x = net.conv_relu(net.input("x", ["batch", 64, 4, 4]), 64, 320)
    for exit in range(4):
        x = net.conv_relu(x, 320, 320)
        net.head(x, 320, f"exit{exit + 1}")
    path = tmp_path / "large.onnx"
    path.write_bytes(net.build().SerializeToString())
    whole, hot = (measured(HOT, model_files["one_output"], path, what) for what in ("whole", "hot"))
    assert hot <= 1.1 * path.stat().st_size + 3 * MEGABYTE
    assert hot <= 1.3 * whole + MEGABYTE
