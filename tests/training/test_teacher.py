"""A run that another network teaches: the same view for both, each view answered once, stops anywhere."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import typer  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from offramp.cli.training import train_model as train_model_command  # noqa: E402
from offramp.errors import OfframpError  # noqa: E402
from offramp.images import ImageSet, generate_images  # noqa: E402
from offramp.training.augment import draw_view, normalise, training_batches, view_images  # noqa: E402
from offramp.training.checkpoint import load_checkpoint  # noqa: E402
from offramp.training.loss import joint_loss  # noqa: E402
from offramp.training.settings import EXIT_WEIGHTS, WIDE, TrainingSettings  # noqa: E402
from offramp.training.teacher import Teacher, taught_by_module, taught_by_run  # noqa: E402
from offramp.training.trainer import train_model  # noqa: E402
from offramp.training.wide import WideNetwork  # noqa: E402

WIDE_SETTINGS = TrainingSettings(epochs=1, batch=50, network=WIDE, exit_weights=EXIT_WEIGHTS[WIDE])


class StoppedError(Exception):
    pass


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, train_images: ImageSet, test_images: ImageSet):
    return taught_by_run(
        train_model(train_images, test_images, tmp_path_factory.mktemp("wide"), WIDE_SETTINGS)
    )


def test_the_teacher_sees_what_the_epoch_shows() -> None:
    """Images of a batch, put back in order, are those of the view: same crop, same mirror."""
    images = torch.from_numpy(generate_images(40, np.random.default_rng(5)).images)
    for number in (0, 1, 2):
        view = draw_view(40, 3, 7, number)
        parts = list(training_batches(images, torch.arange(40), 8, 3, 0, 7, 11, view=view))
        order = torch.cat([rows for _, rows in parts])
        shown = torch.cat([x for x, _ in parts])[order.argsort()]
        told = torch.cat([view_images(images, view, start, start + 16, 3) for start in (0, 16, 32)])
        torch.testing.assert_close(shown, told)


def test_neighbouring_views_mirror_one_another_and_differ_in_shift() -> None:
    first, second, again = (draw_view(500, 4, 3, number) for number in (0, 1, 0))
    assert (first.mirrored ^ second.mirrored).all()
    assert 0.4 < first.mirrored.float().mean() < 0.6
    assert (first.offsets != second.offsets).any()
    assert torch.equal(first.offsets, again.offsets)
    assert first.offsets.unique().tolist() == list(range(9))


def test_every_exit_learns_from_the_teacher() -> None:
    """With the teacher's answer alone, each exit's gradient is that of the softened distance to it."""
    outputs = [torch.randn(6, 10, requires_grad=True) for _ in range(3)]
    taught = torch.randn(6, 10)
    weights = (0.2, 0.5, 1.0)
    joint_loss(
        outputs, torch.arange(6), weights, smoothing=0.1, distillation=1.0, temperature=2.0, taught=taught
    ).backward()
    for logits, weight in zip(outputs, weights, strict=True):
        assert logits.grad is not None
        # T times the difference of the softened answers, over the batch: the derivative of T²·KL.
        by_hand = weight * 2.0 * ((logits / 2).softmax(1) - (taught / 2).softmax(1)) / 6
        torch.testing.assert_close(logits.grad, by_hand.detach())


def test_a_taught_run_that_was_stopped_ends_with_the_same_weights(
    teacher, tmp_path: Path, train_images: ImageSet, test_images: ImageSet
) -> None:
    settings = TrainingSettings(epochs=3, batch=50, views=2, teacher=teacher.fingerprint)
    whole = train_model(train_images, test_images, tmp_path / "whole", settings, teacher=teacher)

    def stop(message: str, share: float, finished: bool) -> None:
        if share > 0.5 and not finished:
            raise StoppedError

    with pytest.raises(StoppedError):
        train_model(train_images, test_images, tmp_path / "parts", settings, teacher=teacher, progress=stop)
    parts = train_model(train_images, test_images, tmp_path / "parts", settings, teacher=teacher)
    assert all(torch.equal(whole.model[name], parts.model[name]) for name in whole.model)
    assert len(list((tmp_path / "whole").glob("answers-*.safetensors"))) == settings.views
    alone = train_model(train_images, test_images, tmp_path / "alone", TrainingSettings(epochs=3, batch=50))
    assert any(not torch.equal(whole.model[name], alone.model[name]) for name in whole.model)


def test_answers_of_other_images_are_refused(
    teacher, tmp_path: Path, train_images: ImageSet, test_images: ImageSet
) -> None:
    settings = TrainingSettings(epochs=1, batch=50, views=2, teacher=teacher.fingerprint)
    train_model(train_images, test_images, tmp_path, settings, teacher=teacher)
    (tmp_path / "checkpoint.safetensors").unlink()
    fewer = ImageSet(train_images.images[:100], train_images.labels[:100], train_images.source)
    with pytest.raises(OfframpError, match="delete it"):
        train_model(fewer, test_images, tmp_path, settings, teacher=teacher)


def test_a_run_keeps_its_teacher(
    teacher, tmp_path: Path, train_images: ImageSet, test_images: ImageSet
) -> None:
    settings = TrainingSettings(epochs=1, batch=50, views=2, teacher=teacher.fingerprint)
    train_model(train_images, test_images, tmp_path, settings, teacher=teacher)
    with pytest.raises(OfframpError, match="teacher"):
        train_model(train_images, test_images, tmp_path, TrainingSettings(epochs=1, batch=50, views=2))


def test_the_fingerprint_tells_weights_apart(teacher) -> None:
    other, same = copy.deepcopy(teacher.model), copy.deepcopy(teacher.model)
    next(iter(other.parameters())).data += 1
    assert Teacher(other, {}).fingerprint != teacher.fingerprint
    assert Teacher(same, {}).fingerprint == teacher.fingerprint


def test_the_wide_network_answers_with_one_exit(teacher) -> None:
    [logits] = teacher.model(torch.zeros(2, 3, 32, 32))
    assert logits.shape == (2, 10)


# A dataclass with its annotations as text looks its module up in sys.modules.
MODULES = """
from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass
class Size:
    classes: int = 10


class Brightness(torch.nn.Module):
    def __init__(self, classes=Size().classes):
        super().__init__()
        self.linear = torch.nn.Linear(3, classes)

    def forward(self, x):
        assert not self.training
        return self.linear(x.mean(dim=(2, 3)))


def eleven():
    return Brightness(11)
"""


def test_any_module_teaches(tmp_path: Path, train_images: ImageSet, test_images: ImageSet) -> None:
    (tmp_path / "net.py").write_text(MODULES)
    first = taught_by_module(f"{tmp_path}/net.py:Brightness")
    save_file(first.model.state_dict(), tmp_path / "weights.safetensors")
    teacher = taught_by_module(f"{tmp_path}/net.py:Brightness", tmp_path / "weights.safetensors")
    assert teacher.fingerprint == first.fingerprint
    settings = TrainingSettings(epochs=1, batch=50, views=2, teacher=teacher.fingerprint)
    run = tmp_path / "run"
    done = train_model(train_images, test_images, run, settings, teacher=teacher)
    assert done.teacher == {"module": "net.py:Brightness", "weights": "weights.safetensors"}
    kept = load_file(run / f"answers-{teacher.fingerprint}-0.safetensors")["answers"]
    view = draw_view(len(train_images), settings.shift, settings.seed, 0)
    shown = view_images(torch.from_numpy(train_images.images), view, 0, len(train_images), settings.shift)
    with torch.no_grad():
        torch.testing.assert_close(kept.float(), teacher.model(shown), atol=0.05, rtol=0.02)


def test_a_teacher_of_other_classes_is_refused(
    tmp_path: Path, train_images: ImageSet, test_images: ImageSet
) -> None:
    (tmp_path / "net.py").write_text(MODULES)
    teacher = taught_by_module(f"{tmp_path}/net.py:eleven")
    settings = TrainingSettings(epochs=1, batch=50, views=2, teacher=teacher.fingerprint)
    with pytest.raises(OfframpError, match=r"must answer \[images, 10\]"):
        train_model(train_images, test_images, tmp_path / "run", settings, teacher=teacher)


def test_the_command_takes_a_module_that_teaches(data_folder: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(train_model_command)
    (tmp_path / "net.py").write_text(MODULES)
    weights, module = tmp_path / "weights.safetensors", f"{tmp_path}/net.py:Brightness"
    save_file(taught_by_module(module).model.state_dict(), weights)
    common = [
        "--data",
        str(data_folder),
        "-o",
        str(tmp_path / "run"),
        "--epochs",
        "1",
        "--views",
        "2",
        "--json",
    ]
    alone = CliRunner().invoke(app, [*common, "--teacher-weights", str(weights)])
    assert isinstance(alone.exception, OfframpError)
    assert alone.exception.field == "--teacher-weights"
    taught = CliRunner().invoke(app, [*common, "--teacher", module, "--teacher-weights", str(weights)])
    assert taught.exit_code == 0, taught.output
    assert load_checkpoint(tmp_path / "run").teacher == {
        "module": "net.py:Brightness",
        "weights": "weights.safetensors",
    }


def test_first_filters_whiten_patches() -> None:
    """What the first filters answer to the images they were made from is uncorrelated, of variance one."""
    images = normalise(torch.from_numpy(generate_images(200, np.random.default_rng(1)).images))
    model = WideNetwork()
    model.whiten(images)
    answers = model.first(images)[:, :12].transpose(0, 1).flatten(1)
    scatter = answers @ answers.T / answers.shape[1]
    assert (scatter - torch.diag(scatter.diagonal())).abs().max() < 1e-3
    assert (scatter.diagonal() <= 1.001).all()
    assert scatter[0, 0] > 0.99
    torch.testing.assert_close(model.first.weight[12:], -model.first.weight[:12])
