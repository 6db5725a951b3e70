"""Sets of labelled 32×32 images: read from a data folder, from the hub, or made up."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.request import Request, urlopen

import numpy as np
import numpy.typing as npt

from offramp.errors import MissingExtraError, OfframpError

Split = Literal["train", "test"]

HUB_REPOSITORY = "uoft-cs/cifar10"
DATA_VARIABLE = "OFFRAMP_DATA"
SIDE = 32
HUB_TIMEOUT_S = 3.0
CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Images and, where they are known, their labels.

    Attributes:
        images: uint8, shape [n, 32, 32, 3], RGB.
        labels: int64, shape [n], index into the data set's classes; None if unknown.
        source: where the images came from, for a person to read.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64] | None
    source: str

    def __len__(self) -> int:
        return len(self.images)


def split_path(split: Split) -> str:
    """The file of one split inside a data folder, as the hub lays it out."""
    return f"plain_text/{split}-00000-of-00001.parquet"


def load_images(data: str | Path | None, split: Split) -> ImageSet:
    """Read one split from `data`, else from the folder in `OFFRAMP_DATA`, else from the hub.

    Raises:
        OfframpError: the folder is missing or its file is not such a data set, or no folder is named
            and the hub has no copy on this machine and cannot be reached.
        MissingExtraError: the packages that read the files are not installed.
    """
    if data is not None:
        return _read_folder("--data", Path(data), split)
    variable = os.environ.get(DATA_VARIABLE)
    if variable:
        return _read_folder(DATA_VARIABLE, Path(variable), split)
    return _read_parquet("hub", _hub_file(split), f"hub {HUB_REPOSITORY} ({split})")


def find_images(data: str | Path | None, split: Split) -> ImageSet | None:
    """Like `load_images`, but None where nobody named a folder and the hub gives nothing.

    A folder that somebody did name must be right: its errors are raised, not swallowed.
    """
    if data is not None or os.environ.get(DATA_VARIABLE):
        return load_images(data, split)
    try:
        return load_images(None, split)
    except OfframpError:
        return None


def generate_images(count: int, rng: np.random.Generator) -> ImageSet:
    """Make `count` smooth colour patterns without labels, the same for the same generator state.

    Each is a coarse 4×4 random grid stretched to 32×32 with a little noise, so that it has the
    low-frequency look of a photograph and a network's early layers do ordinary work on it.
    """
    if count < 0:
        raise OfframpError("count", count, "must be 0 or more")
    coarse = rng.integers(0, 256, size=(count, 4, 4, 3)).astype(np.float32)
    position = np.clip((np.arange(SIDE) + 0.5) / 8 - 0.5, 0, 3)
    low = np.minimum(position.astype(np.int64), 2)
    weight = (position - low).astype(np.float32)
    rows = coarse[:, low] * (1 - weight)[:, None, None] + coarse[:, low + 1] * weight[:, None, None]
    smooth = rows[:, :, low] * (1 - weight)[:, None] + rows[:, :, low + 1] * weight[:, None]
    noisy = smooth + rng.normal(0, 8, size=smooth.shape)
    return ImageSet(np.clip(np.rint(noisy), 0, 255).astype(np.uint8), None, "generated images")


def _read_folder(field: str, folder: Path, split: Split) -> ImageSet:
    layout = f"a folder with {split_path(split)} (columns img, label)"
    if not folder.is_dir():
        raise OfframpError(field, str(folder), f"no such folder; must be {layout}", "check the path")
    path = folder / split_path(split)
    if not path.is_file():
        raise OfframpError(
            field, str(folder), f"must be {layout}", f"copy the files of {HUB_REPOSITORY} there"
        )
    return _read_parquet(field, path, f"{folder} ({split})")


def _hub_file(split: Split) -> Path:
    """The hub's file from the local cache, else downloaded."""
    try:
        from huggingface_hub import constants, hf_hub_download
    except ImportError:
        raise MissingExtraError("huggingface_hub", "data") from None
    where = partial(hf_hub_download, HUB_REPOSITORY, split_path(split), repo_type="dataset")
    try:
        return Path(where(local_files_only=True))
    except OSError:
        pass  # not in the cache
    try:
        # The hub's client tries an unreachable host again and again for half a minute; one knock first.
        urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=HUB_TIMEOUT_S).close()
        return Path(where())
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:80]
    raise OfframpError(
        "data",
        f"hub:{HUB_REPOSITORY}",
        f"not in the local cache and cannot be downloaded ({reason})",
        f"name a folder with --data or {DATA_VARIABLE}",
    )


def _read_parquet(field: str, path: Path, source: str) -> ImageSet:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtraError("pyarrow", "data") from None
    try:
        schema = pq.read_schema(path)
        columns = set(schema.names)
        if not {"img", "label"} <= columns or "bytes" not in _field_names(schema.field("img").type):
            raise OfframpError(
                field, str(path), f"must have columns img{{bytes,path}} and label, has {sorted(columns)}"
            )
        table = pq.read_table(path, columns=["img", "label"])
        encoded: list[bytes | None] = table.column("img").combine_chunks().field("bytes").to_pylist()
        labels = table.column("label").combine_chunks().to_numpy(zero_copy_only=False)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise OfframpError(field, str(path), f"must be a parquet file ({reason})") from None
    if not np.issubdtype(labels.dtype, np.integer) or (len(labels) and labels.min() < 0):
        raise OfframpError(field, str(path), f"labels must be integers from 0, have type {labels.dtype}")
    return ImageSet(_decode(field, path, encoded), labels.astype(np.int64), source)


def _field_names(kind: Any) -> set[str]:
    return {kind.field(i).name for i in range(kind.num_fields)}


def _decode(field: str, path: Path, encoded: list[bytes | None]) -> npt.NDArray[np.uint8]:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise MissingExtraError("pillow", "data") from None
    images = np.empty((len(encoded), SIDE, SIDE, 3), dtype=np.uint8)
    for row, data in enumerate(encoded):
        if data is None:
            raise OfframpError(field, str(path), f"image {row} has no bytes")
        try:
            with Image.open(io.BytesIO(data)) as image:
                pixels = np.asarray(image.convert("RGB"))
        except (UnidentifiedImageError, OSError) as error:
            raise OfframpError(field, str(path), f"image {row} cannot be decoded ({error})") from None
        if pixels.shape != (SIDE, SIDE, 3):
            raise OfframpError(
                field, str(path), f"image {row} is {pixels.shape[1]}×{pixels.shape[0]}, must be {SIDE}×{SIDE}"
            )
        images[row] = pixels
    return images
