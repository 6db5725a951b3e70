"""Codecs as choices: more rows in the option table, and nothing else changes for formulas, policies and solvers."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.envs import actions_of
from offramp.equations import TIME_TOLERANCE_S
from offramp.errors import OfframpError
from offramp.host_profile import HostProfile, exit_coefficients, measured_codecs
from offramp.instance import Instance, parse_instance
from offramp.observation import Timing
from offramp.options import Gain, OptionTable, System
from offramp.profile import CodedCut, ExitCoefficients
from offramp.simulator import simulate_named
from offramp.task import UNCODED, Decision, Task
from offramp.worthwhile import SAME_ACCURACY, SAME_TIME, worthwhile
from strategies import coded_exits, instances, systems

Exits = tuple[ExitCoefficients, ...]
POLICIES = ("random", "greedy", "myopic", "edgent", "neurosurgeon", "edge-only", "device-only")


@given(systems(codecs=True), st.integers(1, 12))
def test_rows_with_codecs_come_beside_those_without(system: System, size: int) -> None:
    plain = System(
        tuple(replace(exit, codecs=()) for exit in system.exits),
        system.device_slowdown,
        system.bandwidth_bytes_per_s,
        system.gain,
        system.network,
    )
    for device in range(system.devices):
        table, without = system.options(device, size), plain.options(device, size)
        uncoded = table.codec == UNCODED
        assert (without.codec == UNCODED).all()
        for name in (field.name for field in fields(OptionTable) if field.init):
            np.testing.assert_array_equal(getattr(table, name)[uncoded], getattr(without, name))
        assert (np.diff(table.exit) >= 0).all()
        assert len(table) - len(without) == sum(len(exit.codecs) for exit in system.exits)
        for number, exit in enumerate(system.exits, 1):
            for coded in exit.codecs:
                row, beside = table.index(number, coded.cut, coded.codec), table.index(number, coded.cut)
                encode_s, decode_s, crossing = (
                    slope * size + base for slope, base in (coded.device_s, coded.edge_s, coded.output_bytes)
                )
                slowdown, link = system.kind(device)
                assert table.head_s[row] == pytest.approx(table.head_s[beside] + slowdown * encode_s)
                assert table.tail_s[row] == pytest.approx(table.tail_s[beside] + decode_s)
                assert table.upload_s[row] == pytest.approx(crossing / link)
                assert table.accuracy[row] == coded.accuracy
                assert not table.local[row]
                assert table.row_of(table.decision(row)) == row


@given(instances(codecs=True))
def test_a_file_read_back_writes_the_same_bytes(instance: Instance) -> None:
    text = instance.to_json()
    again = parse_instance(text)
    assert again.to_json() == text
    assert [exit.codecs for exit in again.system.exits] == [exit.codecs for exit in instance.system.exits]
    for exit, written in zip(instance.system.exits, json.loads(text)["exits"], strict=True):
        assert ("codecs" in written) == bool(exit.codecs)


@given(instances(codecs=True), st.sampled_from(POLICIES))
def test_a_paper_schedule_recomputes_from_the_file_alone(instance: Instance, name: str) -> None:
    file = json.loads(instance.to_json())
    schedule = json.loads(simulate_named(instance, name, "paper", np.random.default_rng(0)).to_json())
    devices = file["devices"]
    slowdown = file.get("device_slowdown", [1.0] * devices)
    link = file.get("device_bandwidth_bytes_per_s", [file["bandwidth_bytes_per_s"]] * devices)
    least = min(exit["accuracy"] for exit in file["exits"])
    sent = dict.fromkeys(range(devices), 0.0)
    finished = total = 0.0
    for task, row in zip(file["tasks"], schedule["tasks"], strict=True):
        if row["exit"] == 0:
            assert "codec" not in row
            continue
        exit, cut, size, device = file["exits"][row["exit"] - 1], row["cut"], task["size"], task["device"]
        encode = decode = 0.0
        crossing, accuracy = exit["output_bytes"][cut], exit["accuracy"]
        if "codec" in row:
            (coded,) = (c for c in exit["codecs"] if (c["cut"], c["codec"]) == (cut, row["codec"]))
            encode, decode = (coded[key][0] * size + coded[key][1] for key in ("device_s", "edge_s"))
            crossing, accuracy = coded["output_bytes"], coded["accuracy"]
        start = max(task["arrival_s"], sent[device])
        head = sum(slope * size + base for slope, base in exit["device_s"][:cut]) + encode
        tail = sum(slope * size + base for slope, base in exit["edge_s"][cut:]) + decode
        sent[device] = start + head * slowdown[device]
        finished = max(sent[device] + (crossing[0] * size + crossing[1]) / link[device], finished) + tail
        assert [row["send_s"], row["finish_s"]] == pytest.approx([sent[device], finished], abs=1e-9)
        satisfaction = 1 / (1 + np.exp(-file["gain"]["accuracy_slope"] * (accuracy - least)))
        late = finished > task["arrival_s"] + task["budget_s"] + TIME_TOLERANCE_S
        gain = 0.0 if late else 1 + file["gain"]["accuracy_weight"] * satisfaction
        assert row["gain"] == pytest.approx(gain, abs=1e-9)
        total += row["gain"]
    assert schedule["gain"] == pytest.approx(total)


@given(instances(codecs=True), st.sampled_from(["random", "myopic"]))
@settings(max_examples=50)
def test_network_timing_takes_them_too(instance: Instance, name: str) -> None:
    schedule = simulate_named(instance, name, "network", np.random.default_rng(0))
    for task, row in zip(instance.tasks, schedule.tasks, strict=True):
        if row.exit and row.on_time:
            options = instance.system.options(task.device, task.size)
            assert row.gain == options.gain[options.index(row.exit, row.cut, row.codec)]


def one_cut(codecs: tuple[CodedCut, ...]) -> Exits:
    """4000 bytes an input cross before the one layer, which takes the device ten times as long as the edge."""
    lines = np.array([[0.010, 0.0]]), np.array([[0.001, 0.0]]), np.array([[4000.0, 0.0], [40.0, 0.0]])
    return (ExitCoefficients(0.8, *lines, codecs),)


@pytest.mark.parametrize("timing", ["paper", "network"])
def test_a_codec_serves_a_task_that_nothing_else_serves(timing: Timing) -> None:
    # Two inputs: on the device 20 ms; to the edge 8000 bytes at 400 kB/s take 20 ms and 2 ms there. With a codec
    # 0.5 ms to encode, 2000 bytes take 5 ms, 0.5 ms to decode and 2 ms: of a budget of 12 ms 4 are left.
    coded = CodedCut(0, "uint8", 0.79, (0.0, 0.0005), (0.0, 0.0005), (1000.0, 0.0))
    for codecs, answered in (((), False), ((coded,), True)):
        system = System(one_cut(codecs), (1.0,), (400e3,), Gain(0.1, 0.0))
        instance = Instance(system, (Task(0.0, 2, 0.012, 0),))
        (row,) = simulate_named(instance, "myopic", timing, np.random.default_rng(0)).tasks
        assert row.on_time == answered
        if answered:
            assert (row.exit, row.cut, row.codec) == (1, 0, "uint8")
            assert row.gain == pytest.approx(1.05)
            assert row.to_dict()["codec"] == "uint8"
        else:
            assert row.exit == 0


@given(coded_exits(), st.sampled_from([0.0, 1.0, 25.0]), st.sampled_from([1e4, 1e6]), st.integers(1, 20))
def test_what_is_left_out_is_no_better_than_something_that_stays(
    exits: Exits, slowdown: float, link: float, size: int
) -> None:
    kept = System(worthwhile(exits), (slowdown,), (link,)).options(0, size)
    every = System(exits, (slowdown,), (link,)).options(0, size)
    for row in range(len(every)):
        alike = (kept.exit == every.exit[row]) & (kept.cut == every.cut[row])
        no_worse = alike & (kept.accuracy >= every.accuracy[row] - SAME_ACCURACY)
        for name, share in (("head_s", 1 + SAME_TIME), ("upload_s", 1.0), ("tail_s", 1 + SAME_TIME)):
            no_worse &= getattr(kept, name) <= share * getattr(every, name)[row] + 1e-12
        assert no_worse.any()


def test_of_codecs_that_differ_in_nothing_one_stays() -> None:
    first = CodedCut(0, "uint8", 0.8, (0.0, 1e-4), (0.0, 1e-4), (1000.0, 8.0))
    exits = one_cut((replace(first, codec="uint8-channel"), first))
    assert worthwhile(exits)[0].codecs == (first,)
    # No time to encode is worth twice the bytes, and a tenth more accuracy, too; neither is worth nothing.
    halves = replace(first, codec="fp16", device_s=(0.0, 0.0), output_bytes=(2000.0, 0.0))
    nothing = replace(first, codec="fp32+zstd", output_bytes=(4000.0, 0.0))
    assert worthwhile(one_cut((nothing, halves, first)))[0].codecs == (halves, first)
    as_quick = replace(halves, device_s=(0.0, 0.95e-4))
    assert worthwhile(one_cut((as_quick, first)))[0].codecs == (first,)
    coarse = replace(first, accuracy=0.79)
    assert worthwhile(one_cut((as_quick, coarse)))[0].codecs == (as_quick, coarse)


def test_actions_and_random_choice_cover_them() -> None:
    coded = CodedCut(0, "uint8", 0.79, (0.0, 0.0), (0.0, 0.0), (1000.0, 0.0))
    exits = (*one_cut((coded,)), *one_cut(()))
    system = System(exits, (1.0,), (1e6,))
    options = system.options(0, 3)
    rows = [options.decision(row) for row in range(len(options))]
    assert Decision(1, 0, "uint8") in rows
    assert actions_of(system)[1:] == rows
    tasks = tuple(Task(0.1 * number, 1, 1.0, 0) for number in range(400))
    schedule = simulate_named(Instance(system, tasks), "random", "paper", np.random.default_rng(1))
    assert {Decision(row.exit, row.cut, row.codec) for row in schedule.tasks if row.exit} == set(rows)


def bad_codec(**changes: Any) -> str:
    coded = {"cut": 0, "codec": "uint8", "accuracy": 0.7, "device_s": [0, 0], "edge_s": [0, 0]}
    coded |= {"output_bytes": [10.0, 0.0]} | changes
    file = json.loads(Instance(System(one_cut(()), (1.0,), (1e5,)), (Task(0.0, 1, 1.0, 0),)).to_json())
    file["exits"][0]["codecs"] = [coded, *([coded] if changes.get("codec") == "twice" else [])]
    return json.dumps(file)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"cut": 1}, r"exits\.0 = .*codecs\.0\.cut = 1: must be in 0\.\.0"),
        ({"cut": -1}, r"exits\.0\.codecs\.0\.cut"),
        ({"codec": "fp32"}, "fp32 at cut 0 is there already"),
        ({"codec": "twice"}, r"codecs\.1: twice at cut 0 is there already"),
        ({"codec": ""}, r"exits\.0\.codecs\.0\.codec"),
        ({"accuracy": 0.0}, r"exits\.0\.codecs\.0\.accuracy"),
        ({"output_bytes": [-5.0, 1.0]}, r"exits\.0\.codecs\.0\.output_bytes at size 1 = -4"),
        ({"device_s": [1.0]}, r"exits\.0\.codecs\.0\.device_s"),
    ],
)
def test_a_bad_codec_in_an_instance_is_named(changes: dict[str, Any], complaint: str) -> None:
    assert parse_instance(bad_codec()).system.exits[0].codecs
    text = bad_codec(**changes)
    with pytest.raises(OfframpError, match=complaint):
        parse_instance(text)


def profile(codecs: list[dict[str, Any]] | None) -> HostProfile:
    layer = {"name": "conv", "seconds": [1e-3, 0.0], "r2": 1.0, "residual_quantiles": {}}
    layer |= {"median_s": [1e-3], "linear": True}
    exit: dict[str, Any] = {"output": "exit1", "layers": [layer, layer], "output_bytes": [[9.0, 0]] * 3}
    if codecs is not None:
        exit["codecs"] = codecs
    host = {"cpu": "c", "cores": 1, "machine": "m", "system": "s", "versions": {}}
    value = {"model_sha256": "0" * 64, "host": host, "sizes": [1], "clock": "wall", "repeats": 1}
    return HostProfile.model_validate(value | {"call_s": [0.0, 0.0], "exits": [exit]})


def measured(cut: int, lost: float, codec: str = "uint8") -> dict[str, Any]:
    lines = {"encode_s": [1e-4, 0.0], "decode_s": [2e-4, 0.0], "output_bytes": [3.0, 0.0]}
    return {"cut": cut, "codec": codec, "bytes_p95": 0.1, "lost_accuracy": lost, "images": 10} | lines


def test_a_profile_without_codecs_still_reads_and_offers_none() -> None:
    old = profile(None)
    assert measured_codecs(old) == frozenset()
    assert exit_coefficients(old, old, [0.8])[0].codecs == ()
    with pytest.raises(
        OfframpError, match=r"codec = 'uint8': the profile has measured none; run offramp profile"
    ):
        exit_coefficients(old, old, [0.8], ["uint8"])


def test_measured_codecs_become_choices_where_they_were_measured() -> None:
    own = profile([measured(0, 0.02), measured(1, -0.01), measured(1, 0.0, "fp16")])
    (exit,) = exit_coefficients(own, own, [0.8], ["uint8"])
    assert [(coded.cut, coded.codec) for coded in exit.codecs] == [(0, "uint8"), (1, "uint8")]
    # Chance may favour a codec on the images that were tried; it is not held to be better than none.
    assert [coded.accuracy for coded in exit.codecs] == pytest.approx([0.78, 0.8])
    assert exit.codecs[0].device_s == (1e-4, 0.0)
    assert exit.codecs[0].edge_s == (2e-4, 0.0)
    slower = exit.with_edge_factor(3.0)
    assert slower.codecs[0].edge_s == pytest.approx((6e-4, 0.0))
    assert slower.codecs[0].device_s == exit.codecs[0].device_s
    np.testing.assert_allclose(slower.edge_s, 3 * exit.edge_s)


@pytest.mark.parametrize("rows", [[measured(2, 0.0)], [measured(0, 0.0), measured(0, 0.1)]])
def test_a_profile_with_codecs_out_of_place_is_refused(rows: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match="one row for each cut and codec"):
        profile(rows)
