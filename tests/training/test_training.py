"""Training: the structure the paper draws, runs that can be stopped anywhere, files that are read with care."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import prod
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from offramp.errors import OfframpError  # noqa: E402
from offramp.images import ImageSet, generate_images  # noqa: E402
from offramp.training.alexnet import BranchyAlexNet  # noqa: E402
from offramp.training.augment import PIXEL_STD, normalise, training_batches  # noqa: E402
from offramp.training.checkpoint import (  # noqa: E402
    CHECKPOINT_NAME,
    Checkpoint,
    load_checkpoint,
)
from offramp.training.loss import joint_loss, rate_share  # noqa: E402
from offramp.training.networks import load_model  # noqa: E402
from offramp.training.optimiser import orthogonalise, split_parameters  # noqa: E402
from offramp.training.settings import EXIT_WEIGHTS, WIDE, TrainingSettings  # noqa: E402
from offramp.training.trainer import measure_accuracy, train_model  # noqa: E402

EXITS = len(EXIT_WEIGHTS["alexnet"])
SETTINGS = TrainingSettings(epochs=2, batch=50)
# AlexNet's own widths on 32×32, the cheap way: 3×3 filters only, the first with stride 2, three pools of 2.
# (places in the output, what a place sees, filters or units) of its eight layers.
ALEXNET = (
    (16 * 16, 3 * 9, 64),
    (8 * 8, 64 * 9, 192),
    (4 * 4, 192 * 9, 384),
    (4 * 4, 384 * 9, 256),
    (4 * 4, 256 * 9, 256),
    (1, 256 * 2 * 2, 4096),
    (1, 4096, 4096),
    (1, 4096, 10),
)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory, train_images: ImageSet, test_images: ImageSet):
    folder = tmp_path_factory.mktemp("run")
    return folder, train_model(train_images, test_images, folder, SETTINGS)


class StoppedError(Exception):
    pass


def path_layers(exit: int) -> tuple[list[str], list[str]]:
    """Convolutions and linear layers that one exit's answer depends on, found from its gradient."""
    torch.manual_seed(0)
    model = BranchyAlexNet().eval()
    model(torch.randn(1, 3, 32, 32))[exit - 1].square().sum().backward()
    used = {name for name, p in model.named_parameters() if p.grad is not None}
    kinds = {nn.Conv2d: [], nn.Linear: []}
    for name, module in model.named_modules():
        if type(module) in kinds and f"{name}.weight" in used:
            kinds[type(module)].append(name.split(".")[0])
    return kinds[nn.Conv2d], kinds[nn.Linear]


def test_the_main_branch_is_an_eight_layer_alexnet() -> None:
    convolutions, dense = path_layers(EXITS)
    assert sorted(convolutions) == [f"conv{i}" for i in range(1, 6)]
    assert sorted(dense) == ["fc6", "fc7", "fc8"]


def test_branches_1_and_2_have_as_many_convolutions_and_differ_in_the_last() -> None:
    first, second = path_layers(1)[0], path_layers(2)[0]
    assert len(first) == len(second)
    assert len(set(first) & set(second)) == len(first) - 1


def multiply_accumulates(exit: int) -> int:
    """Counted from what the layers on the exit's path see, independently of the exported graph."""
    model, total = BranchyAlexNet().eval(), 0
    layers = {name for kind in path_layers(exit) for name in kind}

    def count(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal total
        total += output[0].numel() * module.weight[0].numel()

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and name.split(".")[0] in layers:
            module.register_forward_hook(count)
    model(torch.zeros(1, 3, 32, 32))
    return total


def test_cost_grows_from_exit_to_exit_and_stays_below_alexnets_own() -> None:
    costs = [multiply_accumulates(exit) for exit in range(1, EXITS + 1)]
    assert all(later > 1.5 * earlier for earlier, later in pairwise(costs))
    assert costs[0] < 5_000_000
    assert costs[-1] <= sum(prod(layer) for layer in ALEXNET) == 62_742_528


def test_the_weights_fit_8_mb() -> None:
    assert 4 * sum(p.numel() for p in BranchyAlexNet().parameters()) < 7_800_000


def test_a_run_learns_and_says_so(finished_run, test_images: ImageSet) -> None:
    folder, state = finished_run
    assert state.finished
    assert [entry.epoch for entry in state.log] == [1, 2]
    assert state.log[-1].loss < state.log[0].loss
    assert max(state.log[-1].test_accuracy) > 0.2  # ten classes
    assert measure_accuracy(load_model(state), test_images) == state.log[-1].test_accuracy
    assert [path.name for path in folder.iterdir()] == [CHECKPOINT_NAME]


@pytest.mark.parametrize("stop_at", [0.3, 0.6])
def test_an_interrupted_run_ends_with_the_same_weights(
    finished_run, tmp_path: Path, train_images: ImageSet, test_images: ImageSet, stop_at: float
) -> None:
    def stop(message: str, share: float, finished: bool) -> None:
        if share > stop_at and not finished:
            raise StoppedError

    with pytest.raises(StoppedError):
        train_model(train_images, test_images, tmp_path, SETTINGS, progress=stop)
    resumed = train_model(train_images, test_images, tmp_path, SETTINGS)
    whole = finished_run[1]
    assert resumed.model.keys() == whole.model.keys()
    for name, tensor in whole.model.items():
        torch.testing.assert_close(resumed.model[name], tensor, rtol=0, atol=0)
    assert [e.test_accuracy for e in resumed.log] == [e.test_accuracy for e in whole.log]


def test_what_is_saved_is_read_back(finished_run) -> None:
    folder, state = finished_run
    found = load_checkpoint(folder)
    assert found.settings == state.settings
    assert found.log == state.log
    for name, tensor in state.model.items():
        torch.testing.assert_close(found.model[name], tensor, rtol=0, atol=0)


def test_a_finished_run_is_not_trained_again(
    finished_run, train_images: ImageSet, test_images: ImageSet
) -> None:
    folder, state = finished_run
    before = (folder / CHECKPOINT_NAME).read_bytes()
    assert train_model(train_images, test_images, folder, SETTINGS, resume=True).log == state.log
    assert (folder / CHECKPOINT_NAME).read_bytes() == before


@pytest.mark.parametrize("change", [{"seed": 1}, {"epochs": 3}, {"batch": 40}, {"cutout": 0}])
def test_other_settings_are_refused_and_change_nothing(
    finished_run, train_images: ImageSet, test_images: ImageSet, change: dict[str, int]
) -> None:
    folder, _ = finished_run
    before = (folder / CHECKPOINT_NAME).read_bytes()
    with pytest.raises(OfframpError, match=next(iter(change))):
        train_model(train_images, test_images, folder, replace(SETTINGS, **change))
    assert (folder / CHECKPOINT_NAME).read_bytes() == before


def test_resume_insists_on_a_run_and_its_opposite_on_none(
    finished_run, tmp_path: Path, train_images: ImageSet, test_images: ImageSet
) -> None:
    with pytest.raises(OfframpError, match="--resume"):
        train_model(train_images, test_images, tmp_path / "new", SETTINGS, resume=True)
    assert not (tmp_path / "new").exists()
    with pytest.raises(OfframpError, match="holds a run already"):
        train_model(train_images, test_images, finished_run[0], SETTINGS, resume=False)


def test_images_without_labels_are_refused(tmp_path: Path, test_images: ImageSet) -> None:
    unlabelled = generate_images(10, np.random.default_rng(0))
    with pytest.raises(OfframpError, match="labels"):
        train_model(unlabelled, test_images, tmp_path, SETTINGS)


@pytest.mark.parametrize("damage", ["cut", "junk", "foreign", "gone"])
def test_a_damaged_checkpoint_is_one_clear_error(finished_run, tmp_path: Path, damage: str) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / CHECKPOINT_NAME
    content = (finished_run[0] / CHECKPOINT_NAME).read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "junk":
        path.write_bytes(b"\x80\x04junk")
    elif damage == "foreign":
        save_file({"a": np.zeros(1)}, path)
    with pytest.raises(OfframpError, match="run"):
        load_checkpoint(tmp_path)


def test_a_checkpoint_of_another_network_is_one_clear_error(finished_run) -> None:
    state = finished_run[1]
    foreign = {name: tensor[:1] for name, tensor in state.model.items() if tensor.ndim}
    with pytest.raises(OfframpError, match="another network") as caught:
        load_model(replace(state, model=foreign))
    assert "\n" not in str(caught.value)


def test_a_run_folder_that_is_a_file_is_refused(
    tmp_path: Path, train_images: ImageSet, test_images: ImageSet
) -> None:
    path = tmp_path / "file"
    path.write_text("taken")
    with pytest.raises(OfframpError, match="-o"):
        train_model(train_images, test_images, path, SETTINGS)


@pytest.mark.parametrize("change", [{"epochs": 0}, {"batch": 1}, {"seed": -1}])
def test_settings_out_of_range_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(OfframpError, match=next(iter(change))):
        TrainingSettings(**change)


def test_batches_hold_every_image_once_mirrored_in_every_second_epoch() -> None:
    """Without shift and hole a batch is the images themselves or their mirror images, each epoch the other."""
    images = torch.from_numpy(generate_images(30, np.random.default_rng(3)).images)
    numbers = torch.arange(30)
    seen = {}
    for epoch in (0, 1):
        parts = list(training_batches(images, numbers, 10, 0, 0, 7, epoch))
        order = torch.cat([labels for _, labels in parts])
        assert sorted(order.tolist()) == list(range(30))
        seen[epoch] = torch.cat([x for x, _ in parts])[order.argsort()]
    plain = normalise(images)
    same = [(seen[0][i] == plain[i]).all().item() for i in range(30)]
    for i in range(30):
        first, second = (seen[0], seen[1]) if same[i] else (seen[1], seen[0])
        torch.testing.assert_close(first[i], plain[i])
        torch.testing.assert_close(second[i], plain[i].flip(2))
    assert 0 < sum(same) < 30


def test_images_move_by_whole_pixels_up_to_the_shift() -> None:
    """Each pixel's colour is its row, so the colour in the middle says how far the image was moved."""
    rows = torch.arange(32)[:, None, None].expand(64, 32, 32, 3).to(torch.uint8)
    [(x, _)] = training_batches(rows, torch.arange(64), 64, 3, 0, 0, 0)
    moves = ((x - normalise(rows))[:, 0, 16, 16] * PIXEL_STD[0]).round()
    assert set(moves.int().tolist()) == set(range(-3, 4))


def test_a_hole_of_the_given_side_is_blanked_inside_the_image() -> None:
    white = torch.full((64, 32, 32, 3), 255, dtype=torch.uint8)
    [(x, _)] = training_batches(white, torch.arange(64), 64, 3, 8, 0, 0)
    blank = (x == 0).all(1)
    assert ((blank.any(1).sum(1) <= 8) & (blank.any(2).sum(1) <= 8)).all()
    assert (blank.flatten(1).sum(1) == 64).any()
    assert (blank.flatten(1).sum(1) >= 16).all()  # at a corner a quarter of it is inside


@pytest.mark.parametrize("shape", [(8, 8), (5, 30), (30, 5)])
def test_orthogonalised_steps_have_singular_values_near_one(shape: tuple[int, int]) -> None:
    values = torch.linalg.svdvals(
        orthogonalise(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    )
    assert values.max() < 1.4
    assert values.median() > 0.6


def test_every_parameter_has_one_optimiser() -> None:
    model = BranchyAlexNet()
    filters, others = split_parameters(model)
    assert {id(p) for p in (*filters, *others)} == {id(p) for p in model.parameters()}
    assert len(filters) + len(others) == len(list(model.parameters()))
    assert all(p.ndim >= 2 for p in filters)


def test_the_last_exit_teaches_and_is_not_taught() -> None:
    outputs = [torch.randn(6, 10, requires_grad=True) for _ in range(EXITS)]
    labels = torch.arange(6)
    weights = SETTINGS.exit_weights
    joint_loss(outputs, labels, weights, smoothing=0.1, distillation=0.5, temperature=2.0).backward()
    alone = outputs[-1].detach().clone().requires_grad_()
    (weights[-1] * nn.functional.cross_entropy(alone, labels, label_smoothing=0.1)).backward()
    torch.testing.assert_close(outputs[-1].grad, alone.grad)


def test_a_checkpoint_knows_whether_it_is_finished(finished_run) -> None:
    state: Checkpoint = finished_run[1]
    assert not replace(state, log=state.log[:1]).finished


@given(
    steps=st.integers(1, 200), done=st.integers(0, 199), rising=st.floats(0, 250), falling=st.floats(0, 250)
)
def test_rates_rise_stay_and_fall_within_their_bounds(
    steps: int, done: int, rising: float, falling: float
) -> None:
    done = min(done, steps - 1)
    share = rate_share(done, steps, rising, falling)
    assert 0 < share <= 1
    if rising <= done + 1 and steps - done >= falling:
        assert share == 1
    assert rate_share(steps - 1, steps, 0, falling) == pytest.approx(1 / max(1, falling))


def test_a_run_can_be_lengthened_while_its_rates_are_constant(
    tmp_path: Path, train_images: ImageSet, test_images: ImageSet
) -> None:
    """Stopped in its constant phase and given another length, a run ends as one of that length from the start."""
    short = replace(SETTINGS, epochs=2, warmup=0.5, cooldown=1)
    long = replace(SETTINGS, epochs=3, warmup=0.5, cooldown=2)

    def stop(message: str, share: float, finished: bool) -> None:
        if finished:
            raise StoppedError

    with pytest.raises(StoppedError):
        train_model(train_images, test_images, tmp_path / "changed", short, progress=stop)
    changed = train_model(train_images, test_images, tmp_path / "changed", long)
    whole = train_model(train_images, test_images, tmp_path / "whole", long)
    assert changed.settings == long
    for name, tensor in whole.model.items():
        torch.testing.assert_close(changed.model[name], tensor, rtol=0, atol=0)
    with pytest.raises(OfframpError, match="epochs"):
        train_model(train_images, test_images, tmp_path / "changed", replace(long, epochs=4))


@given(epochs=st.integers(1, 60), warmup=st.floats(0, 30), cooldown=st.floats(0, 30))
def test_until_the_rates_fall_they_do_not_depend_on_the_number_of_epochs(
    epochs: int, warmup: float, cooldown: float
) -> None:
    settings = TrainingSettings(epochs=epochs, warmup=warmup, cooldown=cooldown)
    longer = replace(settings, epochs=epochs + 7)
    assert sum(settings.phases) <= epochs * (1 + 1e-9)
    for done in range(settings.constant_until):
        first, second = (rate_share(done, s.epochs, *s.phases) for s in (settings, longer))
        assert first == second


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"epochs": 40, "seed": 3, "cutout": 10},
        {"warmup": 1.0, "cooldown": 16.5, "exit_weights": (0.1, 0.05, 0.25, 1.0), "filter_lr": 0.03},
        {"batch": 250, "shift": 2, "distillation": 0.25, "smoothing": 0.0, "views": 8},
        {"network": WIDE, "exit_weights": EXIT_WEIGHTS[WIDE]},
    ],
)
def test_the_options_that_a_bundle_names_give_its_settings(
    changes: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `as_options` writes is parsed by the command itself."""
    import typer
    from typer.testing import CliRunner

    from offramp.cli import training

    found = []

    def note(train: object, test: object, folder: Path, settings: TrainingSettings, **rest: object) -> None:
        found.append(settings)
        raise OfframpError("stop", 0, "seen")

    monkeypatch.setattr("offramp.images.load_images", lambda data, split: None)
    monkeypatch.setattr("offramp.training.trainer.train_model", note)
    app = typer.Typer()
    app.command()(training.train_model)
    wanted = TrainingSettings(**changes)
    CliRunner().invoke(app, ["-o", str(tmp_path), *wanted.as_options().split()])
    assert found == [wanted]


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d", "1,1,1,-1", ""])
def test_exit_weights_that_do_not_do_are_refused(text: str, tmp_path: Path) -> None:
    import typer
    from typer.testing import CliRunner

    from offramp.cli import training

    app = typer.Typer()
    app.command()(training.train_model)
    result = CliRunner().invoke(app, ["-o", str(tmp_path / "run"), "--exit-weights", text])
    assert isinstance(result.exception, OfframpError)
    assert "weights" in str(result.exception)
    assert not (tmp_path / "run").exists()
