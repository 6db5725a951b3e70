"""What crosses may be coded: both sides know the codecs before a task is decided, and nothing else is taken."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_runtime_admission import HELLO, Bench, changed, declined
from test_runtime_processes import balanced, running, share

from offramp.host_profile import CodecProfile
from offramp.model.bundle import add_profile, default_bundle_path, load_bundle, save_bundle
from offramp.model.codecs import CODECS, find_codec, largest_payload
from offramp.model.executor import ChainExecutor
from offramp.model.inputs import random_inputs
from offramp.profile import CodedCut, ExitCoefficients
from offramp.runtime.edge_job import Run
from offramp.runtime.edge_main import cap_of
from offramp.runtime.processor import BadPayloadError, Coded, Processor
from offramp.runtime.protocol import (
    CodedUpload,
    Refusal,
    Refused,
    Upload,
    Verdict,
    decode_from_uploader,
    encode,
)
from offramp.runtime.wire import wires_of
from offramp.task import UNCODED

FREE = (0.0, 0.0)


@pytest.fixture
def coded_exits(four_exits: tuple[ExitCoefficients, ...]) -> tuple[ExitCoefficients, ...]:
    """Exits whose inputs cross in no time with a codec, so that it is the best of what the edge can choose."""
    coded = CodedCut(0, "uint8", 1.0, FREE, FREE, FREE)
    return tuple(replace(exit, codecs=(coded,)) for exit in four_exits)


@pytest.fixture
def bench(coded_exits: tuple[ExitCoefficients, ...], monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr("test_runtime_admission.HELLO", changed(HELLO, codecs=("uint8",)))
    return Bench(coded_exits)


def coded_upload(verdict: Verdict, codec: str = "uint8") -> CodedUpload:
    return CodedUpload(verdict.sequence, verdict.exit, verdict.cut, 2, 0.5, codec, memoryview(b"packed"))


def test_a_decision_names_its_codec_and_only_that_is_taken(bench: Bench) -> None:
    verdict = bench.announce(0)
    assert (verdict.cut, verdict.codec) == (0, "uint8")
    assert declined(bench.upload(verdict)) is Refusal.CODEC  # as it is
    for codec in ("fp16", "no-such-codec"):
        bench.edge.upload(bench.token, coded_upload(verdict, codec), bench.now_s)
        assert declined(list(bench.edge.take())) is Refusal.CODEC
    bench.edge.upload(bench.token, coded_upload(verdict), bench.now_s)
    (run,) = bench.edge.take()
    assert isinstance(run, Run)
    assert run.crossed == (Coded("uint8", memoryview(b"packed"), 2),)
    bench.edge.computed(run.batch, [Refusal.BAD_TENSORS], bench.now_s, 0.0)
    assert declined(list(bench.edge.take())) is Refusal.BAD_TENSORS
    assert bench.edge.idle
    assert bench.edge.counts.to_dict()["chosen"] == {f"{verdict.exit}/0/uint8": 1}


@pytest.mark.parametrize("known", [(), ("fp16",), ("fp16", "uint8+lz4")])
def test_a_device_that_lacks_a_codec_is_refused_by_its_name(bench: Bench, known: tuple[str, ...]) -> None:
    refused = bench.edge.hello(changed(HELLO, device="d1", codecs=known), bench.now_s)
    assert isinstance(refused, Refused)
    assert (refused.reason, refused.value) == (Refusal.CODEC, "uint8")
    assert bench.edge.devices == 1


def test_an_edge_without_codecs_takes_every_device(four_exits: tuple[ExitCoefficients, ...]) -> None:
    bench = Bench(four_exits)
    assert bench.announce(0).codec == UNCODED
    assert isinstance(bench.edge.hello(changed(HELLO, device="d1", codecs=("uint8",)), bench.now_s), bytes)


@pytest.fixture(scope="module")
def executor() -> ChainExecutor:
    return ChainExecutor(load_bundle(None).model)


@pytest.mark.parametrize("codec", ["fp16", "uint8", "uint8+lz4", "uint8-channel+zstd", "fp32+zstd"])
def test_head_and_tail_with_a_codec_between_them_answer_alike(executor: ChainExecutor, codec: str) -> None:
    # Of the largest cut, where every codec has something to do.
    number = len(executor.exits)
    sizes = [sum(spec.bytes_per_input for spec in cut) for cut in executor.model.exit(number).cuts]
    cut, last = int(np.argmax(sizes)), executor.layers(number)
    processor = Processor(executor)
    inputs = random_inputs(executor.boundary(number, 0), 3, np.random.default_rng(0))
    head = processor.run(number, 0, cut, inputs, codec)
    assert head.coded is not None
    assert (head.coded.codec, head.coded.size) == (codec, 3)
    raw = len(encode(Upload(0, number, cut, 3, 1.0, wires_of(head.tensors))))
    frame = encode(CodedUpload(0, number, cut, 3, 1.0, codec, memoryview(head.coded.payload)))
    assert len(frame) < raw
    crossed = decode_from_uploader(frame)
    assert isinstance(crossed, CodedUpload)
    tail = processor.run(number, cut, last, Coded(crossed.codec, crossed.payload, crossed.size))
    plain = processor.run(number, cut, last, head.tensors)
    assert tail.coded is None
    (found,), (expected,) = tail.tensors.values(), plain.tensors.values()
    scale = float(np.abs(expected).max())
    assert np.abs(found - expected).max() <= (0.0 if codec.startswith("fp32") else 0.1 * scale)
    for damaged in (crossed.payload[:-1], bytes(crossed.payload) + b"x", b""):
        with pytest.raises(BadPayloadError):
            processor.run(number, cut, last, Coded(codec, damaged, 3))
    with pytest.raises(BadPayloadError):
        processor.run(number, cut, last, Coded(codec, crossed.payload, 4))


@pytest.mark.parametrize("name", sorted(CODECS))
def test_no_frame_with_a_codec_is_larger_than_the_cap(executor: ChainExecutor, name: str) -> None:
    bundle, rng = load_bundle(None), np.random.default_rng(1)
    for branch in bundle.model.exits:
        for cut, specs in enumerate(branch.cuts):
            # Noise is what no compression can make smaller.
            noise = {
                spec.name: rng.integers(0, 256, spec.shape_at(2)).astype(np.uint8)
                if spec.dtype == "uint8"
                else rng.standard_normal(spec.shape_at(2)).astype(spec.dtype)
                for spec in specs
            }
            payload = find_codec(name).encode(noise, specs)
            assert len(payload) <= largest_payload([specs], 2)
            frame = encode(CodedUpload(2**53, 1000, cut, 2, -1e7, name, memoryview(payload)))
            assert len(frame) <= cap_of(bundle, 2)


def coded_bundle(folder: Path) -> Path:
    """The shipped bundle, with a profile that has uint8 make the first cut's tensors so small that it is chosen."""
    shipped = load_bundle(None)
    files = {name: default_bundle_path() / name for name in shipped.manifest.files}
    save_bundle(folder, shipped.manifest, files)
    profile = shipped.profile()
    row = CodecProfile(
        cut=1,
        codec="uint8",
        encode_s=(1e-5, 1e-5),
        decode_s=(1e-5, 1e-5),
        output_bytes=(20.0, 10.0),
        bytes_p95=0.0,
        lost_accuracy=0.0,
        images=1,
    )
    exits = tuple(exit.model_copy(update={"codecs": (row,)}) for exit in profile.exits)
    add_profile(folder, profile.model_copy(update={"exits": exits}))
    return folder


def test_processes_send_and_answer_what_is_coded(tmp_path: Path) -> None:
    bundle = str(coded_bundle(tmp_path / "bundle"))
    tasks_file = share(tmp_path / "share.npz", tasks=8, gap_s=0.3, budget_s=3.0)
    common = ["--bundle", bundle]
    with running(
        "edge", "--port", "0", "--policy", "neurosurgeon", "--codecs", "uint8", "--supervised", *common
    ) as edge:
        address = f"127.0.0.1:{edge.event('ready')['port']}"
        arguments = ["device", "--edge", address, "--tasks-file", str(tasks_file), "--supervised", *common]
        with running(*arguments, "--id", "d0", "--slowdown", "2", "--rate", "40mbit") as device:
            device.event("ready")
            device.order(start_s=time.monotonic() + 0.1)
            summary = device.event("done")["summary"]
        with running(*arguments, "--id", "d1", "--codecs", "") as stranger:
            status, out, err = stranger.finish()
    assert balanced(summary), summary
    assert summary["codecs"] == {"uint8": summary["cuts"]["1"]}
    assert summary["cuts"]["1"] >= 6
    assert summary["failed"] == 0
    assert status == 2
    assert "uint8" in err
    assert "--codecs" in err
    assert len(err.strip().splitlines()) == 1
    assert all(json.loads(line)["event"] == "loaded" for line in out.splitlines())


@pytest.mark.parametrize(
    ("command", "named"),
    [(["edge", "--codecs", "jpeg"], "jpeg"), (["demo", "--codecs", "uint8,wavelet"], "wavelet")],
)
def test_a_codec_that_does_not_exist_is_named(command: list[str], named: str) -> None:
    with running(*command) as process:
        status, out, err = process.finish()
    assert (status, out) == (2, "")
    assert f"codec = '{named}'" in err
    assert len(err.strip().splitlines()) == 1
