"""Export: one file that gives torch's answers, and a bundle that says how good they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

from offramp.errors import OfframpError  # noqa: E402
from offramp.images import ImageSet, generate_images  # noqa: E402
from offramp.model.bundle import BundleManifest, load_bundle  # noqa: E402
from offramp.training.alexnet import BranchyAlexNet  # noqa: E402
from offramp.training.augment import normalise  # noqa: E402
from offramp.training.deployment import IMAGE_INPUT, OPSET, DeployedNetwork, to_onnx  # noqa: E402
from offramp.training.export import export_bundle  # noqa: E402
from offramp.training.networks import load_model  # noqa: E402
from offramp.training.settings import TrainingSettings  # noqa: E402
from offramp.training.trainer import train_model  # noqa: E402

NAMES = [f"exit{number}" for number in range(1, 5)]
IMAGES = torch.zeros((1, 32, 32, 3), dtype=torch.uint8)


def disturbed_network() -> BranchyAlexNet:
    """Random weights and random batch norm statistics, so that a fold that forgets one is seen."""
    torch.manual_seed(0)
    model = BranchyAlexNet()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 2)
            torch.nn.init.normal_(module.bias)
            torch.nn.init.normal_(module.running_mean)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


@pytest.fixture(scope="module")
def network() -> BranchyAlexNet:
    return disturbed_network()


@pytest.fixture(scope="module")
def graph(network: BranchyAlexNet) -> onnx.ModelProto:
    return to_onnx(DeployedNetwork(network), NAMES, IMAGES)


@pytest.mark.parametrize("size", [1, 3, 10])
def test_onnx_runtime_gives_torchs_logits(network: BranchyAlexNet, graph: onnx.ModelProto, size: int) -> None:
    images = generate_images(size, np.random.default_rng(size)).images
    session = ort.InferenceSession(graph.SerializeToString())
    with torch.no_grad():
        expected = network(normalise(torch.from_numpy(images)))
    for found, wanted in zip(session.run(NAMES, {IMAGE_INPUT: images}), expected, strict=True):
        assert found.shape == (size, 10)
        np.testing.assert_allclose(found, wanted.numpy(), rtol=0, atol=1e-5 * np.abs(found).max())


def test_the_graph_is_what_the_design_promises(graph: onnx.ModelProto) -> None:
    [entry] = graph.graph.input
    assert entry.name == IMAGE_INPUT
    assert entry.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    shape = entry.type.tensor_type.shape.dim
    assert shape[0].dim_param
    assert [d.dim_value for d in shape[1:]] == [32, 32, 3]
    assert [value.name for value in graph.graph.output] == NAMES
    assert graph.opset_import[0].version == OPSET >= 17
    assert "BatchNormalization" not in {node.op_type for node in graph.graph.node}


def test_weights_are_stored_once_and_names_are_plain(graph: onnx.ModelProto) -> None:
    content = [tensor.raw_data for tensor in graph.graph.initializer if len(tensor.raw_data) > 1000]
    assert len(set(content)) == len(content)
    names = [node.name for node in graph.graph.node]
    assert len(set(names)) == len(names)
    assert {"conv1.conv", "pool1", "conv5.conv", "fc8", "branch1_conv.conv"} <= set(names)
    size = len(graph.SerializeToString())
    assert size < 8_000_000
    assert not any(part.metadata_props or part.doc_string for part in graph.graph.node)


def test_export_prints_and_warns_nothing(network: BranchyAlexNet, capfd: pytest.CaptureFixture[str]) -> None:
    to_onnx(DeployedNetwork(network), NAMES, IMAGES)
    assert capfd.readouterr() == ("", "")


def test_the_original_is_left_as_it_was(network: BranchyAlexNet) -> None:
    before = [name for name, _ in network.named_modules()]
    DeployedNetwork(network)
    assert [name for name, _ in network.named_modules()] == before


@pytest.fixture(scope="module")
def bundle(
    tmp_path_factory: pytest.TempPathFactory, train_images: ImageSet, test_images: ImageSet
) -> tuple[Path, Path, BundleManifest]:
    run, folder = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("bundle")
    train_model(train_images, test_images, run, TrainingSettings(epochs=1, batch=50))
    return run, folder, export_bundle(run, folder, test_images)


def test_a_bundle_states_the_accuracy_that_the_file_has(
    bundle: tuple[Path, Path, BundleManifest], test_images: ImageSet
) -> None:
    _, folder, manifest = bundle
    assert load_bundle(folder).manifest == manifest
    session = ort.InferenceSession(folder / "model.onnx")
    for exit, logits in zip(
        manifest.exits, session.run(NAMES, {IMAGE_INPUT: test_images.images}), strict=True
    ):
        assert exit.images == len(test_images)
        assert exit.accuracy == pytest.approx(np.mean(logits.argmax(1) == test_images.labels), abs=1e-9)
    operations = [exit.operations or 0 for exit in manifest.exits]
    assert operations == sorted(operations)


def test_a_bundle_says_how_it_was_made(bundle: tuple[Path, Path, BundleManifest]) -> None:
    _, folder, manifest = bundle
    training = json.loads((folder / "bundle.json").read_text())["training"]
    assert manifest.training == training
    assert "offramp train-model" in training["command"]
    assert training["seed"] == training["settings"]["seed"] == 0
    assert training["versions"]["torch"]
    assert len(training["log"]) == 1
    assert min(training["torch_agreement"]) >= 0.999
    assert "/" not in training["command"]


def test_the_same_checkpoint_exports_to_the_same_bytes(
    bundle: tuple[Path, Path, BundleManifest], tmp_path: Path, test_images: ImageSet
) -> None:
    run, _, manifest = bundle
    assert export_bundle(run, tmp_path, test_images).files == manifest.files


def test_export_needs_a_run_and_labels(
    bundle: tuple[Path, Path, BundleManifest], tmp_path: Path, test_images: ImageSet
) -> None:
    output = tmp_path / "bundle"
    with pytest.raises(OfframpError, match="train-model"):
        export_bundle(tmp_path, output, test_images)
    with pytest.raises(OfframpError, match="labelled"):
        export_bundle(bundle[0], output, generate_images(4, np.random.default_rng(0)))
    assert not output.exists()


def test_a_file_that_disagrees_with_torch_is_not_shipped(
    bundle: tuple[Path, Path, BundleManifest],
    tmp_path: Path,
    test_images: ImageSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The exporter is made to write another network's weights, as a faulty one might."""
    wrong = to_onnx(DeployedNetwork(disturbed_network()), NAMES, IMAGES)
    monkeypatch.setattr("offramp.training.export.to_onnx", lambda network, outputs, example: wrong)
    with pytest.raises(OfframpError, match="agree with torch"):
        export_bundle(bundle[0], tmp_path / "bundle", test_images)
    assert not (tmp_path / "bundle").exists()


def test_the_commands_train_resume_and_export(data_folder: Path, tmp_path: Path) -> None:
    import typer

    from offramp.cli import training

    app = typer.Typer()
    app.command()(training.train_model)
    app.command()(training.export)
    run, output = str(tmp_path / "run"), str(tmp_path / "bundle")
    train = ["train-model", "--data", str(data_folder), "-o", run, "--epochs", "1", "--json"]
    result = CliRunner().invoke(app, train)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["epochs"] == 1
    assert CliRunner().invoke(app, [*train, "--resume"]).exit_code == 0
    again = CliRunner().invoke(app, [*train, "--no-resume"])
    assert isinstance(again.exception, OfframpError)
    result = CliRunner().invoke(app, ["export", run, "-o", output, "--data", str(data_folder), "--json"])
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.stdout)["exits"]) == 4
    assert load_bundle(tmp_path / "bundle").accuracies == tuple(
        exit["accuracy"] for exit in json.loads(result.stdout)["exits"]
    )


def test_the_network_of_a_checkpoint_answers_like_the_trained_one(
    tmp_path: Path, train_images: ImageSet, test_images: ImageSet
) -> None:
    state = train_model(train_images, test_images, tmp_path, TrainingSettings(epochs=1, batch=50))
    model = load_model(state)
    assert not model.training
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, state.model[name], rtol=0, atol=0)
