"""A bundle is what its manifest says, byte for byte, or it is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from offramp.errors import OfframpError
from offramp.host_profile import ExitProfile, HostDescription, HostProfile, LayerProfile
from offramp.model.bundle import (
    Bundle,
    BundleManifest,
    ExitInfo,
    add_profile,
    load_bundle,
    read_manifest,
    save_bundle,
)
from offramp.model.executor import ChainExecutor


@pytest.fixture
def bundle(tmp_path: Path, model_files: dict[str, Path]) -> Path:
    """A bundle of the residual network."""
    manifest = BundleManifest(
        name="residual",
        input="x",
        classes=tuple("abcdefghij"),
        exits=tuple(ExitInfo(output=f"exit{i}", accuracy=0.5 + i / 10, images=100) for i in (1, 2, 3)),
        training={"command": "none", "seed": 1},
        files={},
    )
    save_bundle(tmp_path / "bundle", manifest, {"model.onnx": model_files["residual"]})
    return tmp_path / "bundle"


def profile_of(bundle: Bundle) -> HostProfile:
    """A made-up profile with the right numbers of exits and layers."""
    layer = LayerProfile(
        name="l",
        seconds=(1e-3, 1e-4),
        r2=1.0,
        residual_quantiles={"p95": 0.1},
        median_s=(1.1e-3,),
        linear=True,
    )
    return HostProfile(
        model_sha256=bundle.model.sha256,
        host=HostDescription(cpu="c", cores=1, machine="m", system="s", versions={}),
        sizes=(1,),
        clock="processor",
        repeats=3,
        call_s=(0.0, 1e-5),
        exits=tuple(
            ExitProfile(
                output=exit.output,
                layers=(layer,) * len(exit.layers),
                output_bytes=tuple((float(count), 0.0) for count in exit.cut_bytes),
            )
            for exit in bundle.model.exits
        ),
    )


def test_a_bundle_loads_as_it_was_saved(bundle: Path) -> None:
    loaded = load_bundle(bundle)
    assert loaded.manifest == read_manifest(bundle)
    assert loaded.accuracies == (0.6, 0.7, 0.8)
    assert [exit.output for exit in loaded.model.exits] == ["exit1", "exit2", "exit3"]
    assert load_bundle(bundle / "bundle.json").manifest == loaded.manifest
    document = json.loads((bundle / "bundle.json").read_text())
    assert document["format"] == "offramp.bundle/1"
    assert set(document["files"]["model.onnx"]) == {"sha256", "bytes"}
    assert not list(bundle.glob(".*")), "nothing temporary stays"


def test_a_bare_file_is_a_bundle_of_unknown_accuracy(model_files: dict[str, Path]) -> None:
    loaded = load_bundle(model_files["dense"])
    assert loaded.accuracies == (None, None)
    assert loaded.manifest.exits[1].operations == loaded.model.exit(2).macs
    with pytest.raises(OfframpError, match=r"has no profile\.json"):
        loaded.profile()


def test_a_changed_byte_is_found(bundle: Path) -> None:
    path = bundle / "model.onnx"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(OfframpError, match=r"hash of .*model.onnx"):
        load_bundle(bundle)
    path.write_bytes(bytes(data[:-1]))
    with pytest.raises(OfframpError, match=r"size of .*model.onnx"):
        load_bundle(bundle)
    path.unlink()
    with pytest.raises(OfframpError, match="must be a regular file"):
        load_bundle(bundle)


def test_a_link_is_not_followed(bundle: Path, model_files: dict[str, Path]) -> None:
    (bundle / "model.onnx").unlink()
    (bundle / "model.onnx").symlink_to(model_files["residual"])
    with pytest.raises(OfframpError, match="must be a regular file"):
        load_bundle(bundle)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"format": "offramp.bundle/2"}, "format"),
        ({"colour": "red"}, "colour"),
        ({"exits": []}, "exits"),
        ({"exits": [{"output": "exit1", "accuracy": 1.5}]}, "accuracy"),
        ({"exits": [{"output": "exit7"}]}, "must be one of exit1, exit2, exit3"),
        ({"input": "y"}, "input"),
        ({"model": "../model.onnx"}, "model"),
        ({"files": {"../model.onnx": {"sha256": "0" * 64, "bytes": 1}}}, "files"),
        ({"files": {}}, "must list model.onnx"),
    ],
)
def test_a_manifest_that_is_not_valid(change: dict[str, Any], complaint: str, bundle: Path) -> None:
    document = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps({**document, **change}))
    with pytest.raises(OfframpError, match=complaint) as caught:
        load_bundle(bundle)
    assert "\n" not in str(caught.value)


def test_what_is_not_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(OfframpError, match=r"has no bundle\.json"):
        load_bundle(tmp_path)
    with pytest.raises(OfframpError, match="no such file"):
        load_bundle(tmp_path / "absent")
    (tmp_path / "bundle.json").write_text("{")
    with pytest.raises(OfframpError, match="Invalid JSON"):
        load_bundle(tmp_path)


def test_a_profile_belongs_to_its_model(bundle: Path) -> None:
    loaded = load_bundle(bundle)
    profile = profile_of(loaded)
    add_profile(bundle, profile)
    again = load_bundle(bundle)
    assert again.profile() == profile
    assert [exit.accuracy for exit in again.coefficients()] == [0.6, 0.7, 0.8]
    assert [exit.layers for exit in again.coefficients()] == [len(exit.layers) for exit in again.model.exits]
    add_profile(bundle, profile.model_copy(update={"model_sha256": "0" * 64}))
    with pytest.raises(OfframpError, match="must be of the model"):
        load_bundle(bundle).profile()


def test_a_bundle_that_would_not_load_is_not_reported_as_saved(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"garbage")
    manifest = BundleManifest(name="b", input="x", exits=(ExitInfo(output="y"),), files={})
    with pytest.raises(OfframpError, match="not an ONNX file"):
        save_bundle(tmp_path / "bundle", manifest, {"model.onnx": tmp_path / "broken.onnx"})


def test_a_bundle_runs(bundle: Path) -> None:
    assert ChainExecutor(load_bundle(bundle).model).exits == (1, 2, 3)
