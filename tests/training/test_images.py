"""Image sets: what is read is what was stored, what is generated depends on the generator alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp.errors import OfframpError
from offramp.images import DATA_VARIABLE, ImageSet, find_images, generate_images, load_images, split_path


def test_a_folder_gives_back_its_images_and_labels(data_folder: Path, test_images: ImageSet) -> None:
    found = load_images(data_folder, "test")
    assert found.images.dtype == np.uint8
    assert found.labels is not None
    assert found.labels.dtype == np.int64
    np.testing.assert_array_equal(found.images, test_images.images)
    np.testing.assert_array_equal(found.labels, test_images.labels)
    assert str(data_folder) in found.source


def test_the_argument_goes_before_the_variable(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "nowhere"))
    assert len(load_images(data_folder, "train")) == 200
    with pytest.raises(OfframpError, match=DATA_VARIABLE):
        load_images(None, "train")
    monkeypatch.setenv(DATA_VARIABLE, str(data_folder))
    assert len(load_images(None, "train")) == 200
    assert len(find_images(None, "test") or ()) == 100


def test_a_named_folder_must_be_right_even_where_images_are_optional(tmp_path: Path) -> None:
    with pytest.raises(OfframpError, match="no such folder"):
        find_images(tmp_path / "nowhere", "test")


def test_nothing_named_and_no_hub_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(OfframpError, match=f"--data or {DATA_VARIABLE}") as caught:
        load_images(None, "test")
    assert "\n" not in str(caught.value)
    assert find_images(None, "test") is None


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OfframpError, match="plain_text/test"):
        load_images(tmp_path, "test")


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / split_path("test")
    path.parent.mkdir()
    return path


def test_a_file_that_is_not_parquet_is_refused(broken: Path, tmp_path: Path) -> None:
    broken.write_bytes(b"not a table")
    with pytest.raises(OfframpError, match="must be a parquet file"):
        load_images(tmp_path, "test")


def test_a_truncated_file_is_refused(broken: Path, tmp_path: Path, data_folder: Path) -> None:
    shutil.copy(data_folder / split_path("test"), broken)
    broken.write_bytes(broken.read_bytes()[:2000])
    with pytest.raises(OfframpError, match="must be a parquet file"):
        load_images(tmp_path, "test")


IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"image": pa.array([b""]), "label": pa.array([1])}, "must have columns"),
        ({"img": pa.array([b""]), "label": pa.array([1])}, "must have columns"),
        ({"img": pa.array([{"bytes": b"junk", "path": ""}], IMAGE), "label": pa.array([1])}, "image 0"),
        ({"img": pa.array([{"bytes": None, "path": ""}], IMAGE), "label": pa.array([1])}, "no bytes"),
        ({"img": pa.array([], IMAGE), "label": pa.array([], pa.float64())}, "labels must be integers"),
        ({"img": pa.array([], IMAGE), "label": pa.array([], pa.string())}, "labels must be integers"),
    ],
)
def test_a_table_of_another_kind_is_refused(
    broken: Path, tmp_path: Path, columns: dict[str, pa.Array], complaint: str
) -> None:
    pq.write_table(pa.table(columns), broken)
    with pytest.raises(OfframpError, match=complaint):
        load_images(tmp_path, "test")


@given(count=st.integers(0, 20), seed=st.integers(0, 2**32))
def test_generated_images_depend_on_the_generator_alone(count: int, seed: int) -> None:
    first = generate_images(count, np.random.default_rng(seed))
    second = generate_images(count, np.random.default_rng(seed))
    assert first.images.shape == (count, 32, 32, 3)
    assert first.images.dtype == np.uint8
    assert first.labels is None
    np.testing.assert_array_equal(first.images, second.images)


def test_generated_images_differ_from_each_other() -> None:
    images = generate_images(3, np.random.default_rng(0)).images
    assert (images[0] != images[1]).mean() > 0.5
    assert images.std() > 30
