"""A bundle: a folder with a branchy model, what is known of its exits, and the hash of every file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from offramp.errors import OfframpError
from offramp.host_profile import HostProfile, exit_coefficients, load_profile
from offramp.model.blocks import BranchyModel, load_model
from offramp.profile import ExitCoefficients
from offramp.validation import parse_json, read_text, write_atomically

MANIFEST_NAME = "bundle.json"
PROFILE_NAME = "profile.json"
_STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
# A file of a bundle is named plainly: no folders, no way out.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")]


class ExitInfo(BaseModel):
    """What is known of one exit: its output in the model, and its accuracy over `images` test images."""

    model_config = _STRICT

    output: str
    accuracy: Annotated[float, Field(gt=0, le=1)] | None = None
    images: Annotated[int, Field(ge=1)] | None = None
    operations: Annotated[int, Field(ge=0)] | None = None


class FileInfo(BaseModel):
    """Hash and size of one file of the bundle."""

    model_config = _STRICT

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0)]


class BundleManifest(BaseModel):
    """bundle.json. `exits` are in order of depth; `files` lists every file but bundle.json itself."""

    model_config = _STRICT

    format: Literal["offramp.bundle/1"] = "offramp.bundle/1"
    name: str
    model: FileName = "model.onnx"
    input: str
    classes: tuple[str, ...] | None = None
    exits: Annotated[tuple[ExitInfo, ...], Field(min_length=1)]
    training: dict[str, Any] | None = None
    files: dict[FileName, FileInfo]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model ready to be run: the checked ONNX file, and what its manifest says.

    A bare ONNX file is a bundle without a folder, with exits of unknown accuracy.
    """

    path: Path
    manifest: BundleManifest
    model: BranchyModel

    @property
    def accuracies(self) -> tuple[float | None, ...]:
        """Accuracy of each exit 1..u, None where unknown."""
        return tuple(exit.accuracy for exit in self.manifest.exits)

    def profile(self) -> HostProfile:
        """The host profile that the bundle carries. Raises OfframpError if it has none, or another model's."""
        if PROFILE_NAME not in self.manifest.files:
            raise OfframpError(
                "bundle", str(self.path), f"has no {PROFILE_NAME}", "run offramp profile on it"
            )
        profile = load_profile(self.path / PROFILE_NAME)
        if profile.model_sha256 != self.model.sha256:
            raise OfframpError(
                "profile",
                profile.model_sha256,
                f"must be of the model {self.model.sha256}",
                "profile it again",
            )
        measured = [len(exit.layers) for exit in profile.exits]
        found = [len(exit.layers) for exit in self.model.exits]
        if measured != found:
            raise OfframpError("layers in the profile", measured, f"must be {found}", "profile it again")
        return profile

    def coefficients(self, codecs: Collection[str] = ()) -> tuple[ExitCoefficients, ...]:
        """Coefficients of each exit, device and edge both taken for the host that the bundle was profiled on.

        Accuracies are the manifest's where it knows them; `codecs` are offered wherever they were measured.
        Raises OfframpError without a profile or accuracy, or for a codec that was not measured.
        """
        profile = self.profile()
        return exit_coefficients(profile, profile, self.accuracies, codecs)


def default_bundle_path() -> Path:
    """The folder of the bundle that the package ships."""
    return Path(str(resources.files("offramp") / "bundled"))


def load_bundle(path: Path | str | None = None) -> Bundle:
    """Read and check a bundle folder, or a bare ONNX file; the shipped bundle without `path`.

    Raises OfframpError if it is missing, if bundle.json is not valid, if a file's hash or size differs
    from the manifest's, or if the model cannot be used.
    """
    path = default_bundle_path() if path is None else Path(path)
    if not path.exists():
        raise OfframpError(
            "bundle", str(path), "no such file or folder", "give a bundle folder or an ONNX file"
        )
    if path.is_dir():
        return _load_folder(path)
    if path.name == MANIFEST_NAME:
        return _load_folder(path.parent)
    model = load_model(path)
    digest, size = _hash(path)
    manifest = BundleManifest(
        name=path.stem,
        model="model.onnx",
        input=model.inputs[0].name,
        exits=tuple(ExitInfo(output=exit.output, operations=exit.macs) for exit in model.exits),
        files={"model.onnx": FileInfo(sha256=digest, bytes=size)},
    )
    return Bundle(path, manifest, model)


def read_manifest(folder: Path) -> BundleManifest:
    """bundle.json of a folder. Raises OfframpError if it is missing or not valid."""
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise OfframpError("bundle", str(folder), f"has no {MANIFEST_NAME}", "train or export a bundle")
    return parse_json(BundleManifest, read_text(path, "bundle"), str(path))


def _load_folder(folder: Path) -> Bundle:
    manifest = read_manifest(folder)
    if manifest.model not in manifest.files:
        raise OfframpError(f"{MANIFEST_NAME}: files", sorted(manifest.files), f"must list {manifest.model}")
    for name, info in manifest.files.items():
        _check_file(folder / name, info)
    model = load_model(folder / manifest.model, [exit.output for exit in manifest.exits])
    if manifest.input not in {spec.name for spec in model.inputs}:
        raise OfframpError(
            f"{MANIFEST_NAME}: input",
            manifest.input,
            f"must be one of {[spec.name for spec in model.inputs]}",
        )
    return Bundle(folder, manifest, model)


def _check_file(path: Path, info: FileInfo) -> None:
    if path.is_symlink() or not path.is_file():
        raise OfframpError("bundle file", str(path), "must be a regular file", "restore the bundle")
    digest, size = _hash(path)
    if size != info.bytes:
        raise OfframpError(f"size of {path}", size, f"the manifest says {info.bytes}", "restore the bundle")
    if digest != info.sha256:
        raise OfframpError(
            f"hash of {path}", digest, f"the manifest says {info.sha256}", "restore the bundle"
        )


def _hash(path: Path) -> tuple[str, int]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return digest, stream.tell()


def save_bundle(folder: Path, manifest: BundleManifest, files: Mapping[str, Path | bytes]) -> BundleManifest:
    """Write a bundle; returns its manifest with the hashes of `files` (name in the bundle → content or source).

    Each file is replaced whole and the manifest last, so an interruption leaves no half-written file.
    Raises OfframpError if the folder cannot be written or what was written does not load.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OfframpError("bundle", str(folder), f"cannot be written ({error.strerror})") from None
    infos = {}
    for name, content in files.items():
        path = folder / name
        if not (isinstance(content, Path) and content.resolve() == path.resolve()):
            write_atomically(path, content.read_bytes() if isinstance(content, Path) else content)
        digest, size = _hash(path)
        infos[name] = FileInfo(sha256=digest, bytes=size)
    complete = manifest.model_copy(update={"files": infos})
    document = json.dumps(complete.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / MANIFEST_NAME, document)
    load_bundle(folder)
    return complete


def add_profile(folder: Path, profile: HostProfile) -> BundleManifest:
    """Put a host profile into a bundle, and its hash into the manifest. Raises OfframpError."""
    manifest = read_manifest(folder)
    files: dict[str, Path | bytes] = {name: folder / name for name in manifest.files}
    return save_bundle(folder, manifest, {**files, PROFILE_NAME: profile.to_json().encode()})
