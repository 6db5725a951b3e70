"""Networks as tools leave them, quantised or fused for a runtime, are cut like any other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from offramp.model.blocks import load_model
from offramp.model.executor import ChainExecutor
from offramp.model.inputs import random_inputs
from offramp.model.pool import WeightPool
from offramp.model.verify import cut_errors

quantization = pytest.importorskip("onnxruntime.quantization")


class Calibration(quantization.CalibrationDataReader):  # type: ignore[misc]
    """A few random inputs of a network."""

    def __init__(self, path: Path) -> None:
        specs = load_model(path).inputs
        rng = np.random.default_rng(0)
        self._left = iter([random_inputs(specs, 2, rng) for _ in range(4)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._left, None)


def pairs(source: Path, target: Path) -> None:
    """Quantise and dequantise around each operator, as most tools do."""
    quantization.quantize_static(source, target, Calibration(source))


def weights(source: Path, target: Path) -> None:
    """Weights as bytes, activations quantised as they come."""
    quantization.quantize_dynamic(source, target)


def fused(source: Path, target: Path) -> None:
    """What ONNX Runtime makes of a file, with operators of its own."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(target)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    ("name", "process"),
    [
        ("residual", pairs),
        ("depthwise", pairs),
        ("transformer", weights),
        ("transformer", fused),
        ("dense", fused),
    ],
)
def test_head_and_tail_are_the_whole(
    name: str,
    process: Callable[[Path, Path], None],
    model_files: dict[str, Path],
    tmp_path: Path,
) -> None:
    process(model_files[name], tmp_path / "processed.onnx")
    model = load_model(tmp_path / "processed.onnx")
    plain = load_model(model_files[name])
    assert len(model.exits) == len(plain.exits)
    for pool in (None, WeightPool()):
        executor = ChainExecutor(model, pool=pool)
        errors = list(cut_errors(executor, np.random.default_rng(1), sizes=(1, 3)))
        assert len(errors) > 2 * len(model.exits)
        assert max(error for _, _, error in errors) < 1e-5
