"""`offramp bundle`: any ONNX file becomes one that edge, device and demo run."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from networks import NETWORKS
from typer.testing import CliRunner

from offramp.cli import app
from offramp.errors import OfframpError
from offramp.model.bundle import load_bundle

QUICK = ("--limit-s", "1")


@pytest.fixture
def residual(tmp_path: Path) -> Path:
    path = tmp_path / "residual.onnx"
    onnx.save(NETWORKS["residual"](), path)
    return path


def bundle(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, ["bundle", *map(str, arguments), *QUICK], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_file_becomes_a_bundle_and_again(residual: Path, tmp_path: Path) -> None:
    for stated in ((0.5, 0.6, 0.7), (0.6, 0.7, 0.8)):
        bundle(residual, "-o", tmp_path / "made", "--accuracies", ",".join(map(str, stated)))
        made = load_bundle(tmp_path / "made")
        assert made.accuracies == stated
        assert [exit.layers for exit in made.coefficients()] == [
            len(exit.layers) for exit in made.model.exits
        ]
        assert (tmp_path / "made" / "model.onnx").read_bytes() == residual.read_bytes()


def test_weights_in_other_files_are_taken_in(tmp_path: Path) -> None:
    path = tmp_path / "apart.onnx"
    onnx.save(
        NETWORKS["plain_chain"](), path, save_as_external_data=True, location="apart.bin", size_threshold=0
    )
    bundle(path, "-o", tmp_path / "made", "--accuracies", "0.5,0.6,0.7")
    (tmp_path / "apart.bin").unlink()
    assert load_bundle(tmp_path / "made").accuracies == (0.5, 0.6, 0.7)


@pytest.mark.parametrize("stated", ["0.5", "0.5,0.6,1.1", "0.5,0.6,x", "0.5,0.6,nan", None])
def test_accuracies_are_stated_for_every_exit_or_measured(
    residual: Path, tmp_path: Path, stated: str | None
) -> None:
    words = [] if stated is None else ["--accuracies", stated]
    made = CliRunner().invoke(app, ["bundle", str(residual), "-o", str(tmp_path / "made"), *words, *QUICK])
    assert isinstance(made.exception, OfframpError)
    assert made.exception.field == "--accuracies"
    assert not (tmp_path / "made").exists()


def test_a_folder_of_something_else_is_left_alone(residual: Path, tmp_path: Path) -> None:
    made = CliRunner().invoke(
        app, ["bundle", str(residual), "-o", str(tmp_path), "--accuracies", "0.5,0.6,0.7", *QUICK]
    )
    assert isinstance(made.exception, OfframpError)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["residual.onnx"]


@pytest.mark.parametrize("name", ["residual", "transformer"])
def test_real_processes_run_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OFFRAMP_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = tmp_path / f"{name}.onnx"
    proto = NETWORKS[name]()
    onnx.save(proto, path)
    bundle(path, "-o", tmp_path / "made", "--accuracies", ",".join("0.5" for _ in proto.graph.output))
    done = CliRunner().invoke(
        app,
        ["demo", "--bundle", str(tmp_path / "made"), "--tasks", "10", "-o", str(tmp_path / "run"), "--json"],
    )
    assert done.exit_code == 0, done.output
    counts = json.loads(done.stdout)
    assert counts["submitted"] == 10
    assert sum(counts[end] for end in ("on_time", "late", "rejected", "expired", "failed")) == 10
    assert counts["failed"] == 0
