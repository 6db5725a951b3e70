"""inspect, evaluate and profile as a user meets them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import FLOAT, UINT8, Network

from offramp.host_profile import load_profile
from offramp.model.bundle import BundleManifest, ExitInfo, load_bundle, save_bundle
from offramp.model.inputs import image_inputs
from offramp.model.tensors import TensorSpec


def offramp(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "offramp", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def channel_counter(layout: str) -> onnx.ModelProto:
    """Says which colour channel is brightest: exit 1 by class 0..2, exit 2 the same but shifted by one."""
    net = Network()
    shape = ["batch", 32, 32, 3] if layout == "last" else ["batch", 3, 32, 32]
    x = net.input("image", shape, UINT8)
    x = net.op("Cast", x, to=FLOAT)
    if layout == "last":
        x = net.op("Transpose", x, perm=[0, 3, 1, 2])
    kernel = net.constant(np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1))
    x = net.op("Conv", x, kernel, kernel_shape=[1, 1])
    mean = net.op("Flatten", net.op("GlobalAveragePool", x))
    for exit, shift in (("exit1", 0), ("exit2", 1)):
        matrix = np.eye(10, dtype=np.float32)[(np.arange(3) + shift) % 3]
        net.output(net.op("MatMul", mean, net.constant(matrix)), exit)
    return net.build()


@pytest.mark.parametrize("layout", ["first", "last"])
def test_evaluate_counts_what_each_exit_gets_right(layout: str, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(channel_counter(layout).SerializeToString())
    result = offramp("evaluate", path, "--data", data, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == {
        "exits": [
            {"exit": 1, "accuracy": 0.75, "images": 120},
            {"exit": 2, "accuracy": 0.0, "images": 120},
        ]
    }


def test_inspect_checks_every_cut(model_files: dict[str, Path]) -> None:
    result = offramp("inspect", model_files["two_inputs"], "--check", "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert [exit["exit"] for exit in document["exits"]] == [1, 2]
    assert 0 <= document["max_relative_error"] <= 1e-5
    for exit in document["exits"]:
        assert [cut["cut"] for cut in exit["cuts"]] == list(range(exit["layers"] + 1))
        assert exit["cuts"][0]["bytes_per_input"] == 3 * 16 * 16 * 4 + 16 * 16
        assert exit["cuts"][-1]["bytes_per_input"] == 10 * 4


def test_inspect_is_a_table_for_a_person(model_files: dict[str, Path]) -> None:
    result = offramp("inspect", model_files["residual"])
    assert result.returncode == 0, result.stderr
    for exit in ("exit 1", "exit 2", "exit 3"):
        assert exit in result.stdout


def test_profile_writes_a_file_and_into_the_bundle(model_files: dict[str, Path], tmp_path: Path) -> None:
    exits = tuple(ExitInfo(output=f"exit{i}", accuracy=0.5) for i in (1, 2))
    folder = tmp_path / "bundle"
    manifest = BundleManifest(name="t", input="x", exits=exits, files={})
    save_bundle(folder, manifest, {"model.onnx": model_files["transformer"]})
    output = tmp_path / "here.json"
    result = offramp("profile", folder, "-o", output, "--into-bundle", "--repeats", "3", "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["format"] == "offramp.profile/1"
    assert document["sizes"] == list(range(1, 11))
    assert load_profile(output) == load_bundle(folder).profile()
    assert [exit["output"] for exit in document["exits"]] == ["exit1", "exit2"]
    assert len(load_bundle(folder).coefficients()) == 2


def test_mistakes_are_one_line_and_status_2(model_files: dict[str, Path], tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.onnx"
    garbage.write_bytes(b"garbage")
    model = model_files["residual"]
    for arguments, complaint in (
        (("inspect", garbage), "not an ONNX file"),
        (("inspect", tmp_path / "absent"), "no such file"),
        (("profile", model, "--into-bundle", "--repeats", "3"), "needs a bundle folder"),
        (("profile", model, "--repeats", "3", "-o", tmp_path / "no" / "p.json"), "cannot be written"),
        (("evaluate", model, "--data", tmp_path / "nowhere"), "--data"),
    ):
        result = offramp(*arguments)
        assert result.returncode == 2, arguments
        assert result.stdout == ""
        assert len(result.stderr.strip().splitlines()) == 1
        assert complaint in result.stderr
    assert not list(tmp_path.glob("no*")), "nothing half-written"


def test_images_become_what_an_input_wants() -> None:
    images = np.arange(2 * 32 * 32 * 3, dtype=np.uint32).astype(np.uint8).reshape(2, 32, 32, 3)
    same = image_inputs(images, [TensorSpec("x", "uint8", (None, 32, 32, 3))])["x"]
    np.testing.assert_array_equal(same, images)
    floats = image_inputs(images, [TensorSpec("x", "float32", (None, 3, 64, 64))])["x"]
    assert floats.shape == (2, 3, 64, 64)
    assert floats.dtype == np.float32
    np.testing.assert_allclose(floats[:, :, ::2, ::2], images.transpose(0, 3, 1, 2) / np.float32(255))
    grey = image_inputs(images, [TensorSpec("x", "float32", (None, 1, 32, 32))])["x"]
    np.testing.assert_allclose(grey[:, 0], np.rint(images.mean(axis=3)) / 255, atol=1e-6)
    with pytest.raises(Exception, match="must be an image"):
        image_inputs(images, [TensorSpec("x", "int64", (None, 7))])
