"""Model files for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from networks import NETWORKS

from offramp.model.blocks import BranchyModel, load_model


def write(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="session")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each of the networks as a file."""
    folder = tmp_path_factory.mktemp("models")
    return {name: write(build(), folder / f"{name}.onnx") for name, build in NETWORKS.items()}


@pytest.fixture(params=list(NETWORKS))
def model(request: pytest.FixtureRequest, model_files: dict[str, Path]) -> BranchyModel:
    """Each of the networks in turn."""
    return load_model(model_files[request.param])
