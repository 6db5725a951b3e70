"""Model files for the tests of this folder."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from networks import NETWORKS
from PIL import Image

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


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 120 images of one colour, the label its brightest channel; every fourth label is wrong."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "plain_text").mkdir()
    rows = []
    for i in range(120):
        pixel = [40, 40, 40]
        pixel[i % 3] = 200
        stream = io.BytesIO()
        Image.fromarray(np.full((32, 32, 3), pixel, np.uint8)).save(stream, "PNG")
        rows.append({"img": {"bytes": stream.getvalue(), "path": None}, "label": i % 3 if i % 4 else 9})
    pq.write_table(pa.Table.from_pylist(rows), folder / "plain_text" / "test-00000-of-00001.parquet")
    return folder
