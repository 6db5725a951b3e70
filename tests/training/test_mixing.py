"""Mixed images: boxes of the drawn sizes, named after what they show, and the same after a stop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import typer  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from offramp.cli.training import train_model as train_model_command  # noqa: E402
from offramp.errors import OfframpError  # noqa: E402
from offramp.images import ImageSet  # noqa: E402
from offramp.training.checkpoint import load_checkpoint  # noqa: E402
from offramp.training.loss import joint_loss  # noqa: E402
from offramp.training.mixing import Mixture, cut_mix  # noqa: E402
from offramp.training.networks import load_model  # noqa: E402
from offramp.training.settings import TrainingSettings  # noqa: E402
from offramp.training.state_file import weights_fingerprint  # noqa: E402
from offramp.training.trainer import train_model  # noqa: E402


def _rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _numbered(count: int, height: int = 24, width: int = 32) -> torch.Tensor:
    """Images whose every pixel has the image's number."""
    return torch.arange(count).float()[:, None, None, None].expand(count, 2, height, width)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_each_pixel_is_its_own_or_the_partners_in_the_stated_shares(share: float) -> None:
    mixed, mixture = cut_mix(_numbered(200), share, _rng(4))
    own = mixed == torch.arange(200)[:, None, None, None]
    others = mixed == mixture.partners[:, None, None, None]
    assert (own | others).all()
    stranger = mixture.partners != torch.arange(200)
    torch.testing.assert_close(own.float().mean((1, 2, 3))[stranger], mixture.kept[stranger])
    assert abs(float((mixture.kept < 1).float().mean()) - share) < 0.1


def test_what_differs_is_one_box() -> None:
    mixed, mixture = cut_mix(_numbered(300), 1.0, _rng(2))
    for number, image in enumerate(mixed[:, 0].numpy()):
        if int(mixture.partners[number]) == number:
            continue
        rows, columns = np.nonzero(image != number)
        if len(rows):
            box = (int(np.ptp(rows)) + 1) * (int(np.ptp(columns)) + 1)
            assert box == len(rows)


def test_a_box_deep_inside_has_a_uniform_part_of_the_area() -> None:
    """A box that the border does not cut keeps what was drawn; the border only makes boxes smaller."""
    kept = cut_mix(_numbered(20_000, 8, 8), 1.0, _rng(1))[1].kept.numpy()
    # The mean of u·(1-√u/4)²: what is left of a square of area u with a uniform centre, side by side.
    grid = (np.arange(20_000) + 0.5) / 20_000
    expected = float((grid * (1 - np.sqrt(grid) / 4) ** 2).mean())
    assert 1 - kept.mean() == pytest.approx(expected, abs=0.01)


def test_a_mixture_is_called_after_its_parts() -> None:
    mixture = Mixture(torch.tensor([1, 0, 2]), torch.tensor([0.75, 0.4, 1.0]))
    labels = torch.tensor([3, 5, 1])
    assert mixture.main_labels(labels).tolist() == [3, 3, 1]
    soft = mixture.soft_labels(labels, 6)
    torch.testing.assert_close(soft.sum(1), torch.ones(3))
    torch.testing.assert_close(soft[0], torch.tensor([0.0, 0.0, 0.0, 0.75, 0.0, 0.25]))
    logits = torch.randn(3, 6, generator=_rng()) * 8
    answers = mixture.answers(logits, 2.0)
    told = (logits / 2).softmax(1)
    torch.testing.assert_close((answers / 2).softmax(1), mixture.blend(told))


def test_a_mixed_loss_has_the_gradient_of_the_weighted_losses() -> None:
    """One loss against blended labels and answers, or two losses weighted by their shares: the same to learn."""
    logits = torch.randn(4, 10, requires_grad=True, generator=_rng(3))
    taught, labels = torch.randn(4, 10, generator=_rng(5)), torch.tensor([0, 3, 3, 9])
    mixture = Mixture(torch.tensor([2, 3, 1, 0]), torch.full((4,), 0.7))
    ways = {"smoothing": 0.1, "distillation": 0.6, "temperature": 2.0}
    mixed = joint_loss(
        [logits], mixture.soft_labels(labels, 10), [1.0], taught=mixture.answers(taught, 2.0), **ways
    )
    own = joint_loss([logits], labels, [1.0], taught=taught, **ways)
    other = joint_loss([logits], labels[mixture.partners], [1.0], taught=taught[mixture.partners], **ways)
    (one,) = torch.autograd.grad(mixed, logits, retain_graph=True)
    (two,) = torch.autograd.grad(0.7 * own + 0.3 * other, logits)
    torch.testing.assert_close(one, two)


class StoppedError(Exception):
    pass


def test_a_mixed_run_that_was_stopped_ends_with_the_same_weights(
    tmp_path: Path, train_images: ImageSet, test_images: ImageSet
) -> None:
    settings = TrainingSettings(epochs=2, batch=50, mix=0.5)
    whole = train_model(train_images, test_images, tmp_path / "whole", settings)

    def stop(message: str, share: float, finished: bool) -> None:
        if share > 0.6 and not finished:
            raise StoppedError

    with pytest.raises(StoppedError):
        train_model(train_images, test_images, tmp_path / "parts", settings, progress=stop)
    parts = train_model(train_images, test_images, tmp_path / "parts", settings)
    assert all(torch.equal(whole.model[name], parts.model[name]) for name in whole.model)
    plain = train_model(train_images, test_images, tmp_path / "plain", TrainingSettings(epochs=2, batch=50))
    assert any(not torch.equal(whole.model[name], plain.model[name]) for name in whole.model)


def test_a_run_begins_with_another_runs_weights_and_says_so(
    tmp_path: Path, train_images: ImageSet, test_images: ImageSet
) -> None:
    first = train_model(train_images, test_images, tmp_path / "first", TrainingSettings(epochs=1, batch=50))
    still = TrainingSettings(
        epochs=1, batch=50, filter_lr=0.0, other_lr=0.0, start=weights_fingerprint(first.model)
    )
    second = train_model(train_images, test_images, tmp_path / "second", still, start=first)
    for name, weight in load_model(first).named_parameters():
        # A step of no size still brings a filter to its length: with batch norm behind it only the direction counts.
        before, after = (w.flatten() / w.norm().clamp_min(1e-9) for w in (weight, second.model[name]))
        torch.testing.assert_close(after, before.detach(), rtol=1e-3, atol=1e-6, msg=name)
    again = load_checkpoint(tmp_path / "second")
    assert again.start == first.history()
    assert "--start START" in str(again.history()["command"])


def test_the_command_continues_from_a_run_and_refuses_another_networks(
    data_folder: Path, tmp_path: Path
) -> None:
    app = typer.Typer()
    app.command()(train_model_command)

    def train(*options: str):
        return CliRunner().invoke(app, ["--data", str(data_folder), "--epochs", "1", "--json", *options])

    first, second, wide = (str(tmp_path / name) for name in ("first", "second", "wide"))
    assert train("-o", first).exit_code == 0
    assert train("-o", second, "--start", first, "--mix", "0.5").exit_code == 0
    assert load_checkpoint(Path(second)).settings.mix == 0.5
    without = train("-o", second)
    assert isinstance(without.exception, OfframpError)
    assert without.exception.field in ("mix", "start")
    other = train("-o", wide, "--start", first, "--network", "wide")
    assert isinstance(other.exception, OfframpError)
    missing = train("-o", wide, "--start", str(tmp_path / "nothing"))
    assert isinstance(missing.exception, OfframpError)
