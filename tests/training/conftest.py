"""A small data folder in the hub's layout, made here, so that no test needs the real one."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from offramp.images import ImageSet, generate_images, split_path


def write_split(folder: Path, split: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Store images as lossless PNG in the columns of the hub's CIFAR-10."""
    rows = []
    for pixels in images:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        rows.append({"bytes": buffer.getvalue(), "path": None})
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    path = folder / split_path(split)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"img": pa.array(rows, kind), "label": labels}), path)


def labelled_images(count: int, seed: int) -> ImageSet:
    """Generated images whose class, 0..9, is their brightness's decile: something that can be learned."""
    images = generate_images(count, np.random.default_rng(seed)).images
    brightness = images.reshape(count, -1).mean(axis=1)
    labels = (np.argsort(np.argsort(brightness)) * 10 // count).astype(np.int64)
    return ImageSet(images, labels, "made for the test")


@pytest.fixture(scope="session")
def train_images() -> ImageSet:
    return labelled_images(200, 1)


@pytest.fixture(scope="session")
def test_images() -> ImageSet:
    return labelled_images(100, 2)


@pytest.fixture(scope="session")
def data_folder(
    tmp_path_factory: pytest.TempPathFactory, train_images: ImageSet, test_images: ImageSet
) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for split, images in (("train", train_images), ("test", test_images)):
        assert images.labels is not None
        write_split(folder, split, images.images, images.labels)
    return folder
