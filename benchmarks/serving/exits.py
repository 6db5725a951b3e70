"""What is served: the bundled network, or one exit of it as a model of its own; and the inputs that it is sent."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx.utils import Extractor

from offramp.model.bundle import load_bundle

BATCHES = 16
"""Different inputs that a run goes through."""


@dataclass(frozen=True)
class Served:
    """A model as an ONNX file, and as a bundle for the edge (None: the bundled one, with all its exits)."""

    model: Path
    bundle: Path | None
    sha256: str


def numbers(text: str) -> tuple[int, ...]:
    """Those of an option: exits, sizes."""
    return tuple(int(part) for part in text.split(","))


def extract(exit: int, folder: Path) -> Served:
    """Write one exit of the bundled network, and a bundle of it with a quick profile."""
    whole = load_bundle(None)
    proto = onnx.load(whole.model.graph.source.path)
    names = [spec.name for spec in whole.model.inputs]
    model, bundle = folder / f"exit{exit}.onnx", folder / f"bundle{exit}"
    onnx.save(Extractor(proto).extract_model(names, [whole.model.exit(exit).output]), model)
    command = [sys.executable, "-m", "offramp", "bundle", str(model), "-o", str(bundle)]
    subprocess.run([*command, "--accuracies", "0.9", "--limit-s", "5"], check=True, stdout=subprocess.DEVNULL)
    return Served(model, bundle, load_bundle(bundle).model.sha256)


def whole() -> Served:
    """The bundled network with all its exits."""
    model = load_bundle(None).model
    return Served(Path(model.graph.source.path), None, model.sha256)


def inputs(size: int) -> list[np.ndarray]:
    """Batches of `size` images, (size, 32, 32, 3) uint8, always the same."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (size, 32, 32, 3), dtype=np.uint8) for _ in range(BATCHES)]
