"""Exits for any module: the trunk is left alone, places are what they claim, the bundle answers as torch does."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch_modules import CLASSES, MODULES, Residual, inputs_for, make_module  # noqa: E402

from offramp.errors import OfframpError  # noqa: E402
from offramp.images import ImageSet, generate_images  # noqa: E402
from offramp.model.bundle import BundleManifest, load_bundle  # noqa: E402
from offramp.model.executor import ChainExecutor  # noqa: E402
from offramp.model.verify import cut_errors  # noqa: E402
from offramp.training.attach import partial_path  # noqa: E402
from offramp.training.augment import CIFAR10_PIXELS  # noqa: E402
from offramp.training.exit_training import train_exits  # noqa: E402
from offramp.training.exits import BranchedNetwork, attach_exits  # noqa: E402
from offramp.training.export import CheckSet, export_exits  # noqa: E402
from offramp.training.heads import make_head  # noqa: E402
from offramp.training.hooks import BEFORE, hooked, plain_attention  # noqa: E402
from offramp.training.places import Place, _nearest, macs_of, trace  # noqa: E402
from offramp.training.settings import ExitTraining  # noqa: E402

KINDS = sorted(MODULES)
STEPS = ExitTraining(epochs=2, batch=8)


def state_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def trained(kind: str, settings: ExitTraining, count: int = 24) -> BranchedNetwork:
    network = attach_exits(make_module(kind), inputs_for(kind, 2), exits=3)
    labels = np.arange(count) % CLASSES
    train_exits(network, inputs_for(kind, count).numpy(), labels, settings)
    return network


@pytest.mark.parametrize("kind", KINDS)
def test_attaching_changes_nothing_in_the_module(kind: str) -> None:
    module, inputs = make_module(kind), inputs_for(kind, 5)
    next(module.parameters()).requires_grad_(False)
    flags, modes, state = (
        [p.requires_grad for p in module.parameters()],
        [part.training for part in module.modules()],
        state_of(module),
    )
    network = attach_exits(module, inputs[:2])
    assert network.trunk is module
    assert [p.requires_grad for p in module.parameters()] == flags
    assert [part.training for part in module.modules()] == modes
    assert same(state_of(module), state)
    assert not any(part._forward_hooks for part in module.modules())
    module.eval()
    network.eval()
    with torch.no_grad(), plain_attention():
        assert torch.equal(network(inputs)[-1], module(inputs))
    assert not any(part._forward_hooks for part in module.modules())


@pytest.mark.parametrize("kind", KINDS)
def test_a_place_is_alone_if_nothing_reaches_the_answer_around_it(kind: str) -> None:
    """Seen from outside: put a constant, or noise, in the output's stead and look at the answers."""
    module = make_module(kind).eval()
    inputs = inputs_for(kind, 2)
    places = [place for place in trace(module, inputs).places if place.calls == 1 and place.shape]
    assert any(place.alone for place in places)
    views: dict[str, bool] = {}

    @torch.no_grad()
    def answer(name: str, seed: int, stead: Tensor) -> Tensor:
        def write(value: Tensor) -> Tensor | None:
            if not name.startswith(BEFORE):
                return stead.clone()
            # Others may read what the submodule reads: the tensor itself is written to, for all.
            views[name] = value._is_view()
            value.copy_(stead)
            return None

        with hooked(module, {name: write}):
            result: Tensor = module(inputs_for(kind, 2, seed))
            return result

    for place in places:
        noise = torch.randn(2, *place.shape, generator=torch.Generator().manual_seed(1))
        first, second = (answer(place.name, seed, noise) for seed in (0, 1))
        matters = not torch.equal(first, answer(place.name, 0, -noise))
        assert place.on_the_way == matters, place
        # Another in the stead of a tensor handed on leaves the first where it was; writing to a view
        # writes to more than the view.
        if not place.handed_on and not views.get(place.name):
            assert place.alone == (matters and torch.equal(first, second)), place


@pytest.mark.parametrize("kind", ["plain", "residual", "separable", "vector"])
def test_work_before_a_place_is_that_of_the_layers_run_before_it(kind: str) -> None:
    """Counted from the layers' shapes, on an independent path."""
    module, total, before = make_module(kind).eval(), 0, {}

    def note(name: str) -> Any:
        part = module.get_submodule(name)

        def hook(output: Tensor) -> None:
            nonlocal total
            if isinstance(part, nn.Conv2d | nn.Linear):
                total += output[0].numel() * part.weight[0].numel()
            before[name] = total

        return hook

    with hooked(module, {name: note(name) for name, _ in module.named_modules() if name}):
        module(inputs_for(kind, 3))
    found = trace(module, inputs_for(kind, 3))
    assert found.macs == total
    assert found.classes == CLASSES
    for place in found.places:
        if not place.handed_on and not place.name.startswith(BEFORE):
            assert place.macs == before[place.name]


def test_a_sum_made_in_the_forward_pass_is_where_the_next_submodule_reads_it() -> None:
    tokens, features = 16 * 16 * 16, 2 * 16 * 16 * 32
    first, network = 16 * 16 * 48, attach_exits(make_module("mixer"), inputs_for("mixer", 2), exits=3)
    assert network.macs[-1] == first + 3 * (tokens + features) + 16 * CLASSES
    found = {place.name: place for place in trace(network.trunk, inputs_for("mixer", 2)).places}
    between = found["before:features.1"]
    assert between.alone
    assert between.shape == (16, 16)
    assert between.macs == first + 2 * tokens + features
    assert not found["features.1"].alone
    # What a submodule reads from another is that one's output and has no second name.
    assert "before:features.1.1" not in found
    assert "before:patches" not in found
    assert all(name.startswith(BEFORE) for name in network.places)


def test_maps_over_time_get_exits() -> None:
    def layer(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Conv3d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool3d((1, 2, 2)))

    clips = torch.randn(4, 3, 5, 16, 16)
    video = nn.Sequential(
        *(layer(3, 16), layer(16, 32), layer(32, 32)),
        *(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(32, CLASSES)),
    ).eval()
    network = attach_exits(video, clips, exits=3).eval()
    answers = network(clips)
    assert [tuple(answer.shape) for answer in answers] == [(4, CLASSES)] * 3
    torch.testing.assert_close(answers[-1], video(clips))


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent_layers_are_work(kind: type[nn.Module], gates: int) -> None:
    """By hand: each step of each layer multiplies what comes in, and what it kept, by all gates' weights."""
    layers = kind(8, 16, num_layers=2, batch_first=True)
    per_step = gates * 16 * (8 + 16) + gates * 16 * (16 + 16)

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers, self.classify = layers, nn.Linear(16, CLASSES)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.classify(self.layers(x)[0][:, -1])

    assert macs_of(Last().eval(), torch.randn(3, 5, 8)) == 5 * per_step + 16 * CLASSES


def test_auto_skips_what_no_head_reads_and_what_leaves_no_work() -> None:
    volume = nn.Sequential(
        nn.Conv3d(1, 8, 3, padding=1),
        nn.Unflatten(1, (4, 2)),
        nn.Flatten(),
        nn.Linear(512, 64),
        nn.ReLU(),
        nn.Linear(64, 512),
        nn.Linear(512, 9),
    )
    example = torch.zeros(2, 1, 4, 4, 4)
    assert "1" not in attach_exits(volume, example, exits=3).places
    with pytest.raises(OfframpError, match="1 to 4 axes"):
        attach_exits(volume, example, ["1"])
    late = nn.Sequential(nn.Conv2d(3, 32, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 3))
    with pytest.raises(OfframpError, match="has places for 1"):
        attach_exits(late, torch.zeros(2, 3, 8, 8), exits=2)


def test_a_module_that_is_scripted_or_of_other_floats_is_refused() -> None:
    inputs = inputs_for("vector", 2)
    with pytest.raises(OfframpError, match="must be float32"):
        attach_exits(make_module("vector").double(), inputs.double())
    with pytest.raises(OfframpError, match="must be float32"):
        attach_exits(make_module("vector").bfloat16(), inputs.bfloat16())
    plain = make_module("plain").eval()
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        scripted = torch.jit.trace(plain, inputs_for("plain", 2))
    with pytest.raises(OfframpError, match="TorchScript"):
        attach_exits(scripted, inputs_for("plain", 2))


@given(
    costs=st.lists(st.integers(1, 100), min_size=1, max_size=9, unique=True).map(sorted),
    data=st.data(),
)
def test_auto_is_the_nearest_choice_of_all(costs: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(costs)))
    targets = [(number + 1) * 100 / (count + 1) for number in range(count)]

    def distance(choice: Any) -> float:
        return sum(abs(cost - target) for cost, target in zip(choice, targets, strict=True))

    found = _nearest(costs, targets)
    assert all(a < b for a, b in pairwise(found))
    assert set(found) <= set(costs)
    assert distance(found) == pytest.approx(min(map(distance, itertools.combinations(costs, count))))


def test_auto_splits_equal_layers_equally() -> None:
    module = nn.Sequential(
        *(nn.Sequential(nn.Linear(64, 64), nn.ReLU()) for _ in range(11)), nn.Linear(64, 64)
    )
    network = attach_exits(module, torch.zeros(1, 64), exits=4)
    assert network.places == ("2", "5", "8")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("exits", [2, 4])
def test_exits_are_in_order_of_work(kind: str, exits: int) -> None:
    network = attach_exits(make_module(kind), inputs_for(kind, 2), exits=exits)
    assert len(network.macs) == exits == len(network.eval()(inputs_for(kind, 2)))
    assert all(a < b for a, b in pairwise(network.macs))
    named = attach_exits(network.trunk, inputs_for(kind, 1), list(reversed(network.places)))
    assert named.places == network.places


@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_trunk_is_the_same_to_the_bit_after_training(kind: str) -> None:
    module = make_module(kind).train()
    before = state_of(module)
    network = attach_exits(module, inputs_for(kind, 2), exits=3)
    heads = state_of(network.heads)
    train_exits(network, inputs_for(kind, 24).numpy(), np.arange(24) % CLASSES, STEPS)
    assert same(state_of(module), before)
    assert not same(state_of(network.heads), heads)
    assert module.training
    assert all(p.requires_grad for p in module.parameters())
    assert all(p.grad is None for p in module.parameters())


def test_a_free_trunk_learns_except_what_is_held() -> None:
    module = make_module("residual")
    module.stem.requires_grad_(False)
    held, before = state_of(module.stem), state_of(module.stages)
    network = attach_exits(module, inputs_for("residual", 2), exits=3)
    train_exits(
        network,
        inputs_for("residual", 24).numpy(),
        np.arange(24) % CLASSES,
        ExitTraining(epochs=1, batch=8, trunk="free"),
    )
    assert not same(state_of(module.stages), before)
    assert torch.equal(module.stem[0].weight, held["0.weight"])


@pytest.mark.parametrize("trunk", ["frozen", "free"])
def test_the_same_seed_gives_the_same_weights(trunk: str) -> None:
    settings = ExitTraining(epochs=1, batch=8, trunk=trunk)
    first, second = (state_of(trained("plain", settings)) for _ in range(2))
    assert same(first, second)
    assert not same(first, state_of(trained("plain", ExitTraining(epochs=1, batch=8, trunk=trunk, seed=1))))


def test_heads_learn_from_the_last_exit_where_labels_say_nothing() -> None:
    """Distillation alone: the early exits come to give the trunk's own answers, though all labels are 0."""
    module = make_module("vector")
    nn.init.normal_(module[5].weight, std=3)
    inputs = inputs_for("vector", 400)
    network = attach_exits(module, inputs[:2], exits=3).eval()
    with torch.no_grad():
        answer = network(inputs)[-1].argmax(1)
        before = [(logits.argmax(1) == answer).float().mean() for logits in network(inputs)]
    settings = ExitTraining(epochs=30, batch=50, distillation=1.0, head_lr=0.01)
    losses = train_exits(network, inputs.numpy(), np.zeros(400, np.int64), settings)
    assert losses[-1] < losses[0] / 2
    with torch.no_grad():
        after = [(logits.argmax(1) == answer).float().mean() for logits in network.eval()(inputs)]
    for early in range(2):
        assert after[early] > max(0.8, before[early])


def test_what_is_broken_off_leaves_flags_and_modes() -> None:
    network = attach_exits(make_module("residual").train(), inputs_for("residual", 2), exits=3)

    def stop(message: str, share: float, finished: bool) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_exits(
            network, inputs_for("residual", 24).numpy(), np.arange(24) % CLASSES, STEPS, progress=stop
        )
    assert network.trunk.training
    assert all(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("trunk", ["frozen", "free"])
def test_a_kept_run_ends_as_one_that_was_not_broken_off(tmp_path: Path, trunk: str) -> None:
    settings = ExitTraining(epochs=3, batch=8, trunk=trunk)
    inputs, labels = inputs_for("residual", 24).numpy(), np.arange(24) % CLASSES

    def run(keep: Path | None, stop_after: float, settings: ExitTraining = settings) -> BranchedNetwork:
        network = attach_exits(make_module("residual"), inputs_for("residual", 2), exits=3)

        def stop(message: str, share: float, finished: bool) -> None:
            if share > stop_after:
                raise KeyboardInterrupt

        train_exits(network, inputs, labels, settings, keep=keep, progress=stop)
        return network

    keep = tmp_path / "run"
    for stop_after in (0.5, 0.8):
        with pytest.raises(KeyboardInterrupt):
            run(keep, stop_after)
    with pytest.raises(OfframpError, match="settings"):
        run(keep, 2, ExitTraining(epochs=4, batch=8, trunk=trunk))
    assert same(state_of(run(keep, 2)), state_of(run(None, 2)))
    keep.write_bytes(b"junk")
    with pytest.raises(OfframpError, match="readable"):
        run(keep, 2)


@pytest.fixture(scope="module", params=KINDS)
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, BranchedNetwork, Path, BundleManifest]:
    kind: str = request.param
    network = trained(kind, ExitTraining(epochs=1, batch=8))
    folder = tmp_path_factory.mktemp(kind)
    inputs = inputs_for(kind, 40, seed=3)
    manifest = export_exits(
        network, folder, CheckSet(inputs.numpy(), np.arange(40) % CLASSES, "drawn"), name=kind
    )
    return kind, network.eval(), folder, manifest


@pytest.mark.parametrize("size", [1, 2, 7])
def test_the_graph_gives_torchs_logits(
    exported: tuple[str, BranchedNetwork, Path, BundleManifest], size: int
) -> None:
    kind, network, folder, manifest = exported
    inputs = inputs_for(kind, size, seed=5)
    session = ort.InferenceSession(folder / manifest.model)
    found = session.run([exit.output for exit in manifest.exits], {manifest.input: inputs.numpy()})
    with torch.no_grad():
        for logits, wanted in zip(found, network(inputs), strict=True):
            np.testing.assert_allclose(
                logits, wanted.numpy(), rtol=0, atol=2e-5 * max(1, np.abs(logits).max())
            )


def test_the_bundle_can_be_cut_everywhere(
    exported: tuple[str, BranchedNetwork, Path, BundleManifest],
) -> None:
    kind, network, folder, manifest = exported
    bundle = load_bundle(folder)
    assert bundle.manifest == manifest
    operations = [exit.operations for exit in manifest.exits]
    unused = 8 * 2 * 16 * 16 if kind == "residual" else 0  # what is thrown away is not exported
    assert operations == [macs - unused for macs in network.macs]
    errors = [error for *_, error in cut_errors(ChainExecutor(bundle.model), np.random.default_rng(0))]
    assert len(errors) >= 2 * len(operations)
    assert max(errors) < 1e-4


class Wrapped(nn.Module):
    def __init__(self, change: Any) -> None:
        super().__init__()
        self.inner, self.change = make_module("plain"), change

    def forward(self, x: Tensor) -> Any:
        return self.change(self.inner, x)


@pytest.mark.parametrize(
    ("at", "complaint"),
    [
        (["stages.9"], "no such submodule"),
        (["spare"], "no such submodule runs"),
        (["aside"], "not on the way"),
        (["stages.0.relu"], "runs 2 times"),
        (["classify"], "earlier place"),
        (["stages.0", "stages.0"], "each once"),
        ([], "must name submodules"),
        ("stages.0", "must be a list"),
    ],
)
def test_a_place_that_does_not_do_is_one_clear_line(at: Any, complaint: str) -> None:
    with pytest.raises(OfframpError, match=complaint) as caught:
        attach_exits(Residual(), inputs_for("residual", 2), at)
    assert "\n" not in str(caught.value)


def test_a_place_with_several_outputs_is_one_clear_line() -> None:
    with pytest.raises(OfframpError, match="one tensor"):
        attach_exits(make_module("transformer"), inputs_for("transformer", 2), ["layers.0.self_attn"])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda inner, x: (inner(x), inner(x)), "gives tuple"),
        (lambda inner, x: {"logits": inner(x)}, "gives dict"),
        (lambda inner, x: inner[0](x), r"gives a tensor \[2, 8, 16, 16\]"),
        (lambda inner, x: inner(x.flatten(1)), "does not run on float32"),
        (lambda inner, x: inner(x, x), "does not run on"),
    ],
)
def test_a_module_that_does_not_do_is_one_clear_line(change: Any, complaint: str) -> None:
    with pytest.raises(OfframpError, match=complaint) as caught:
        attach_exits(Wrapped(change), inputs_for("plain", 2))
    assert "\n" not in str(caught.value)


def test_more_exits_than_places_are_refused() -> None:
    # After the fifth of its six layers, no head would take less work than the sixth.
    assert len(attach_exits(make_module("vector"), inputs_for("vector", 2), exits=5).places) == 4
    with pytest.raises(OfframpError, match="has places for 5"):
        attach_exits(make_module("vector"), inputs_for("vector", 2), exits=6)
    with pytest.raises(OfframpError, match="2 or more"):
        attach_exits(make_module("vector"), inputs_for("vector", 2), exits=1)
    with pytest.raises(OfframpError, match="batch"):
        attach_exits(make_module("vector"), inputs_for("vector", 2)[:0])


def test_a_forward_pass_that_fixes_the_batch_is_refused(tmp_path: Path) -> None:
    module = Wrapped(lambda inner, x: inner(x).reshape(len(x), CLASSES))
    network = attach_exits(module, inputs_for("plain", 2), exits=2)
    checked = CheckSet(inputs_for("plain", 4).numpy(), None, "drawn")
    with pytest.raises(OfframpError, match="fixes the number of inputs"):
        export_exits(network, tmp_path / "bundle", checked, name="fixed")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    "change", [{"epochs": 0}, {"batch": 1}, {"trunk": "cold"}, {"distillation": 1.5}, {"temperature": 0}]
)
def test_settings_out_of_range_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(OfframpError, match=next(iter(change))):
        ExitTraining(**change)


def test_inputs_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    network = attach_exits(make_module("plain"), inputs_for("plain", 2), exits=2)
    floats = inputs_for("plain", 4).numpy()
    with pytest.raises(OfframpError, match="labels"):
        train_exits(network, floats, np.zeros(3, np.int64), STEPS)
    with pytest.raises(OfframpError, match="uint8"):
        train_exits(network, floats, np.zeros(4, np.int64), STEPS, scale=CIFAR10_PIXELS)
    with pytest.raises(OfframpError, match="uint8"):
        export_exits(network, tmp_path, CheckSet(floats, None, "drawn"), name="n", scale=CIFAR10_PIXELS)


SOURCE = """
from torch import nn

def make():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(),
        nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10)
    )

def number():
    return 3
"""


def test_the_command_makes_a_bundle(data_folder: Path, tmp_path: Path, test_images: ImageSet) -> None:
    import typer
    from safetensors.torch import save_file
    from typer.testing import CliRunner

    from offramp.cli import training

    app = typer.Typer()
    app.command()(training.attach_exits)
    source, output, weights = tmp_path / "net.py", tmp_path / "bundle", tmp_path / "w.safetensors"
    source.write_text(SOURCE)
    common = ["--data", str(data_folder), "-o", str(output), "--epochs", "1", "--json"]
    for reference, extra, complaint in (
        (f"{source}:number", [], "must give a torch module"),
        (f"{source}:missing", [], "no function"),
        (f"{source}", [], "NAME"),
        ("no_such_module_here:make", [], "cannot be imported"),
        (f"{source}:make", ["--weights", str(tmp_path / "none")], "safetensors"),
        (f"{source}:make", ["--at", "17"], "no such submodule"),
        (f"{source}:make", ["--trunk", "cold"], "frozen or free"),
    ):
        result = CliRunner().invoke(app, [reference, *extra, *common])
        assert isinstance(result.exception, OfframpError), result.output
        assert complaint in str(result.exception)
    assert not output.exists()
    assert not partial_path(output).exists()
    torch.manual_seed(5)
    made = nn.ModuleList([nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.Conv2d(16, 16, 3), nn.Linear(256, 10)])
    tensors = {
        f"{place}.{k}": v
        for place, part in zip("0247", made, strict=True)
        for k, v in part.state_dict().items()
    }
    save_file(tensors, weights)
    result = CliRunner().invoke(app, [f"{source}:make", "--weights", str(weights), "--at", "1,3", *common])
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    assert len(shown["exits"]) == 3
    assert not partial_path(output).exists()
    bundle = load_bundle(output)
    assert bundle.manifest.training is not None
    assert bundle.manifest.training["places"] == ["1", "3"]
    assert bundle.manifest.input == "image"
    assert bundle.accuracies == tuple(exit["accuracy"] for exit in shown["exits"])
    logits = ChainExecutor(bundle.model).run_exits(
        {"image": generate_images(3, np.random.default_rng(0)).images}
    )
    assert {number: answer.shape for number, answer in logits.items()} == {1: (3, 10), 2: (3, 10), 3: (3, 10)}


@given(
    shape=st.one_of(
        st.tuples(st.integers(1, 64), st.integers(1, 40), st.integers(1, 40)),
        st.tuples(st.integers(1, 70), st.integers(1, 64)),
        st.tuples(st.integers(1, 300)),
    ),
    work=st.integers(1, 10**8),
    share=st.floats(0.01, 0.99),
)
@settings(deadline=None, max_examples=60)
def test_a_head_fits_any_place_and_spends_what_it_may(
    shape: tuple[int, ...], work: int, share: float
) -> None:
    place = Place("somewhere", 1, shape, int(work * share), True, True, False)
    head = make_head(place, work, CLASSES).eval()
    assert head(torch.zeros(2, *shape)).shape == (2, CLASSES)
    budget = 0.2 * min(place.macs, work - place.macs)
    least = make_head(replace(place, macs=0), work, CLASSES).eval()
    blank = torch.zeros(1, *shape)
    # What comes after its first layer is small, and its share of the budget is left to it.
    assert macs_of(head, blank) <= max(1.5 * budget, macs_of(least, blank)) + 8 * 256 * CLASSES
