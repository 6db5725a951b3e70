"""Measured codecs: bytes and times as lines, accuracy against a plain count, and what becomes of them in files."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from networks import FLOAT, UINT8, Network
from test_model_cli import channel_counter, offramp

from offramp.host_profile import HostProfile
from offramp.model.blocks import load_model
from offramp.model.bundle import BundleManifest, ExitInfo, load_bundle, save_bundle
from offramp.model.codec_profiler import (
    codec_rows,
    coded_places,
    count_right_coded,
    measure_codecs,
    with_codecs,
)
from offramp.model.codecs import CODECS, find_codec
from offramp.model.evaluate import labels_of
from offramp.model.executor import ChainExecutor
from offramp.model.inputs import image_inputs
from offramp.model.profiler import Measurements, build_profile

SIZES = (1, 4, 10)


@pytest.fixture(scope="module")
def executor(tmp_path_factory: pytest.TempPathFactory) -> ChainExecutor:
    """Two exits about a trunk on small images, with convolutions whose channels differ in range."""
    net = Network()
    x = net.input("image", ["batch", 32, 32, 3], UINT8)
    x = net.op("Transpose", net.op("Cast", x, to=FLOAT), perm=[0, 3, 1, 2])
    x = net.pool(net.conv_relu(net.op("Div", x, net.constant(np.float32(255))), 3, 8))
    net.head(net.pool(net.conv_relu(x, 8, 4)), 4, "exit1")
    x = net.pool(net.conv_relu(x, 8, 16))
    net.head(net.conv_relu(x, 16, 16), 16, "exit2")
    path = tmp_path_factory.mktemp("coded") / "model.onnx"
    path.write_bytes(net.build().SerializeToString())
    return ChainExecutor(load_model(path, ["exit1", "exit2"]))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (37, 32, 32, 3)).astype(np.uint8)


def unmeasured(executor: ChainExecutor, sizes: tuple[int, ...]) -> HostProfile:
    """A profile in which every block and every call takes 1 ms."""
    blocks = sorted({block for number in executor.exits for block in executor.model.exit(number).blocks})
    found = Measurements.empty(sizes, blocks)
    found.repeats = 1
    for index in range(len(sizes)):
        found.calls[index].append(1e-3)
        for block in blocks:
            found.blocks[block][index].append(1e-3)
    return build_profile(executor, found, [0.6, 0.7])


def test_places_that_share_a_cut_are_measured_once(executor: ChainExecutor) -> None:
    places = coded_places(executor, ["uint8"])
    assert (1, 0) not in places  # bytes already
    assert places[2, 1] == (1, 1)
    assert set(places) == {(n, c) for n in (1, 2) for c in range(1, executor.layers(n))}
    assert (1, 0) in coded_places(executor, ["fp32+zstd"])


def test_lines_are_those_of_the_measurements(executor: ChainExecutor, images: np.ndarray) -> None:
    ticks = itertools.count()
    profile = unmeasured(executor, SIZES)
    steps = measure_codecs(
        executor,
        images,
        np.random.default_rng(0),
        CODECS,
        sizes=SIZES,
        repeats=3,
        clock=lambda: next(ticks) * 2e-3,
    )
    found = list(steps)[-1]
    assert found.repeats == 3
    rows = codec_rows(executor, found, 37, {1: 20, 2: 10}, {(1, 1, "uint8"): 19, (2, 1, "uint8"): 12})
    complete = with_codecs(profile, rows)
    assert HostProfile.model_validate_json(complete.to_json()) == complete
    for number in executor.exits:
        exit = executor.model.exit(number)
        for row in complete.exits[number - 1].codecs:
            for line in (row.encode_s, row.decode_s):
                assert line == pytest.approx((0.0, 2e-3), abs=1e-9)
            plain = exit.cut_bytes[row.cut]
            assert row.output_bytes[0] * 10 + row.output_bytes[1] <= 0.95 * 10 * plain
            if row.codec == "fp16":
                assert row.output_bytes == pytest.approx((plain / 2, 0))
            elif row.codec == "uint8":
                assert row.output_bytes == pytest.approx((plain / 4 + 8, 0))
            elif row.codec == "uint8-channel":
                channels = exit.cuts[row.cut][0].shape[1]
                assert row.output_bytes == pytest.approx((plain / 4, 8 * channels))
            if row.codec.partition("+")[0] == "uint8" and row.cut == 1:
                assert row.lost_accuracy == pytest.approx({1: 1 / 37, 2: -2 / 37}[number])
            else:
                assert row.lost_accuracy == 0
            assert row.images == 37


def test_each_codec_is_timed_as_it_is_run(
    executor: ChainExecutor, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head of its own before each encoding, and a tail before each decoding; neither is in the codec's time."""
    events: list[str] = []
    head, tail = ChainExecutor.run_head, ChainExecutor.run_tail
    monkeypatch.setattr(ChainExecutor, "run_head", lambda *given: (events.append("head"), head(*given))[1])
    monkeypatch.setattr(ChainExecutor, "run_tail", lambda *given: (events.append("tail"), tail(*given))[1])

    def clock() -> float:
        events.append("clock")
        return float(len(events))

    codecs = ["uint8", "fp16+zstd"]
    rng = np.random.default_rng(0)
    list(measure_codecs(executor, images, rng, codecs, sizes=SIZES, repeats=3, clock=clock))
    once = ["head", "clock", "clock", "tail", "clock", "clock"]
    assert events == once * (len(events) // len(once))
    places = len(set(coded_places(executor, codecs).values()))
    assert len(events) == len(once) * len(codecs) * places * len(SIZES) * (1 + 3)


def test_times_are_scaled_to_the_profiles_host(executor: ChainExecutor, images: np.ndarray) -> None:
    ticks = itertools.count()
    profile = unmeasured(executor, SIZES)

    def clock() -> float:
        return next(ticks) * 8e-3

    steps = measure_codecs(
        executor,
        images,
        np.random.default_rng(0),
        ["uint8"],
        sizes=SIZES,
        beside=profile,
        repeats=3,
        clock=clock,
    )
    found = list(steps)[-1]
    # The profile says 1 ms for each layer and for the call; a whole exit took one tick.
    predicted = {1 + executor.layers(number) for number in executor.exits}
    assert {round(8 / factor) for factor in found.host} <= predicted
    factor = float(np.median(found.host))
    rows = codec_rows(executor, found, 1, {1: 1, 2: 1}, {})
    assert rows[1][0].encode_s == pytest.approx((0.0, 8e-3 / factor))


def test_accuracy_is_that_of_a_plain_count(executor: ChainExecutor, images: np.ndarray) -> None:
    labels = np.random.default_rng(4).integers(0, 10, len(images))
    done, right, coded = list(
        count_right_coded(executor, images, labels, ["uint8+zstd", "fp16", "fp32+lz4"])
    )[-1]
    assert done == len(images)
    assert {name for _, _, name in coded} == {"uint8", "fp16"}
    for number in executor.exits:
        inputs = image_inputs(images, executor.model.inputs)
        own = {spec.name: inputs[spec.name] for spec in executor.boundary(number, 0)}
        assert right[number] == int(np.sum(labels_of(executor.run(number, own)) == labels))
        for cut in range(1, executor.layers(number)):
            specs = executor.boundary(number, cut)
            for name in ("uint8", "fp16"):
                codec = find_codec(name)
                # These codecs treat each input by itself, so all images may cross as one task.
                payload = codec.encode(executor.run_head(number, cut, own), specs)
                answers = executor.run_tail(number, cut, codec.decode(payload, specs, len(images)))
                assert coded[number, cut, name] == int(np.sum(labels_of(answers) == labels))


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A bundle whose profile has codecs in it, by the command."""
    folder = tmp_path_factory.mktemp("profiled") / "bundle"
    source = tmp_path_factory.mktemp("source") / "model.onnx"
    source.write_bytes(channel_counter("first").SerializeToString())
    exits = (ExitInfo(output="exit1", accuracy=0.7), ExitInfo(output="exit2", accuracy=0.8))
    save_bundle(
        folder, BundleManifest(name="t", input="image", exits=exits, files={}), {"model.onnx": source}
    )
    for options in ((), ("--codecs", "uint8,fp16+zstd", "--keep-layers", "--data", data, "--images", "40")):
        result = offramp("profile", folder, "--into-bundle", "--repeats", "3", *options)
        assert result.returncode == 0, result.stderr
    return folder


def test_a_profile_keeps_its_layers_and_gains_codecs(profiled: Path) -> None:
    profile = load_bundle(profiled).profile()
    for exit in profile.exits:
        assert {row.codec for row in exit.codecs} <= {"uint8", "fp16+zstd"}
        assert "uint8" in {row.codec for row in exit.codecs}
        # One colour an image survives any codec.
        assert all(row.lost_accuracy == 0 and row.images == 40 for row in exit.codecs)
    coefficients = load_bundle(profiled).coefficients(["uint8"])
    assert {coded.codec for exit in coefficients for coded in exit.codecs} == {"uint8"}
    assert all(not exit.codecs for exit in load_bundle(profiled).coefficients())


def test_streams_offer_codecs_only_where_they_are_asked_for(profiled: Path, tmp_path: Path) -> None:
    written = {}
    for name, options in {"plain": (), "fp32": ("--codecs", "fp32"), "all": ("--codecs", "all")}.items():
        path = tmp_path / f"{name}.json"
        result = offramp("stream", "-o", path, "--bundle", profiled, "--tasks", "30", *options)
        assert result.returncode == 0, result.stderr
        written[name] = path
    assert written["plain"].read_bytes() == written["fp32"].read_bytes()
    assert "codecs" not in written["plain"].read_text()
    file = json.loads(written["all"].read_text())
    for exit in file["exits"]:
        del exit["codecs"]
    assert file == json.loads(written["plain"].read_text())
    gains = {}
    for name in ("plain", "all"):
        result = offramp("solve", written[name], "--solver", "exact", "--json")
        assert result.returncode == 0, result.stderr
        gains[name] = json.loads(result.stdout)["upper_bound"]
    assert gains["all"] >= gains["plain"]


def test_evaluate_shows_what_each_cut_loses(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(channel_counter("first").SerializeToString())
    result = offramp("evaluate", path, "--data", data, "--codecs", "uint8+zstd", "--json")
    assert result.returncode == 0, result.stderr
    exits = json.loads(result.stdout)["exits"]
    assert [(row["accuracy"], row["images"]) for row in exits] == [(0.75, 120), (0.0, 120)]
    for row in exits:
        assert row["codecs"]
        assert all(
            coded
            == {"cut": coded["cut"], "codec": "uint8", "accuracy": row["accuracy"], "lost_accuracy": 0.0}
            for coded in row["codecs"]
        )


def test_mistakes_are_one_line_and_status_2(profiled: Path, tmp_path: Path, data: Path) -> None:
    target = tmp_path / "instance.json"
    for arguments, complaint in (
        (("stream", "-o", target, "--bundle", profiled, "--codecs", "jpeg"), "codec = 'jpeg': one of"),
        (("stream", "-o", target, "--bundle", profiled, "--codecs", "uint8+lz4"), "the profile has measured"),
        (("profile", profiled, "--keep-layers"), "leaves nothing to measure"),
        (("profile", profiled, "--codecs", "all", "--data", tmp_path / "nowhere"), "--data"),
        (("evaluate", profiled, "--codecs", "zip", "--data", data), "codec = 'zip'"),
    ):
        result = offramp(*arguments)
        assert result.returncode == 2, arguments
        assert result.stdout == ""
        assert len(result.stderr.strip().splitlines()) == 1
        assert complaint in result.stderr
    assert not target.exists()


def test_a_profile_of_before_codecs_still_reads(executor: ChainExecutor) -> None:
    document = json.loads(unmeasured(executor, SIZES).to_json())
    for exit in document["exits"]:
        del exit["codecs"]
    old = HostProfile.model_validate(document)
    assert all(exit.codecs == () for exit in old.exits)
