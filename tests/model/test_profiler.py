"""Lines through measurements, and profiles that give every exit the same numbers for what it shares."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp.equations import head_durations, linear, tail_durations
from offramp.errors import OfframpError
from offramp.host_profile import HostProfile, exit_coefficients, load_profile
from offramp.model.blocks import load_model
from offramp.model.executor import ChainExecutor
from offramp.model.fit import fit_line, r_squared
from offramp.model.profiler import MIN_REPEATS, Call, Measurements, build_profile, measure, reading_s
from offramp.options import cut_costs

SIZES = np.arange(1.0, 11.0)
durations = st.floats(1e-6, 1.0)


@given(st.floats(0, 1), st.floats(0, 1), st.lists(st.tuples(st.integers(0, 9), durations), max_size=2))
def test_a_few_wild_points_do_not_move_the_line(
    slope: float, intercept: float, wild: list[tuple[int, float]]
) -> None:
    seconds = slope * SIZES + intercept + 1e-6
    true = seconds.copy()
    for index, value in wild:
        seconds[index] = max(seconds[index], value) * 3
    found = fit_line(SIZES, seconds)
    np.testing.assert_allclose(found[0] * SIZES + found[1], true, rtol=1e-6)


@given(st.lists(durations, min_size=2, max_size=10))
def test_no_other_line_is_nearer(seconds: list[float]) -> None:
    """The fit is compared with lines on a grid and around it: none has a smaller sum of relative deviations."""
    y = np.array(seconds)
    x = SIZES[: len(y)]

    def deviation(slopes: np.ndarray, intercepts: np.ndarray) -> np.ndarray:
        predicted = slopes[..., None] * x + intercepts[..., None]
        return np.sum(np.abs(predicted - y) / y, axis=-1)

    slope, intercept = fit_line(x, y)
    assert slope >= 0
    assert intercept >= 0
    best = deviation(np.array(slope), np.array(intercept))
    slopes, intercepts = np.meshgrid(np.linspace(0, y.max(), 60), np.linspace(0, y.max(), 60))
    assert best <= deviation(slopes, intercepts).min() + 1e-9
    near = np.linspace(0.5, 1.5, 41)
    slopes, intercepts = np.meshgrid(slope * near, intercept * near)
    assert best <= deviation(slopes, intercepts).min() + 1e-9


@given(st.lists(st.tuples(durations, st.integers(1, 4)), min_size=2, max_size=6))
def test_a_weight_is_that_many_points(points: list[tuple[float, int]]) -> None:
    seconds, counts = np.array([point[0] for point in points]), [point[1] for point in points]
    sizes = SIZES[: len(points)]

    def deviation(line: tuple[float, float]) -> float:
        return float(np.sum(counts * np.abs(line[0] * sizes + line[1] - seconds) / seconds))

    weighted = fit_line(sizes, seconds, np.array(counts, float))
    repeated = fit_line(np.repeat(sizes, counts), np.repeat(seconds, counts))
    assert deviation(weighted) == pytest.approx(deviation(repeated), rel=1e-9, abs=1e-9)


def test_r_squared() -> None:
    assert r_squared((2.0, 1.0), SIZES, 2 * SIZES + 1) == 1.0
    assert r_squared((0.0, 1.0), SIZES, np.ones(10)) == 1.0
    assert r_squared((0.0, float(np.mean(SIZES))), SIZES, SIZES) == pytest.approx(0.0)


def executor_of(model_files: dict[str, Path], name: str) -> ChainExecutor:
    return ChainExecutor(load_model(model_files[name]))


def made_up(executor: ChainExecutor, seconds: Callable[[int, int], float]) -> Measurements:
    """Measurements in which block b takes seconds(b, size), and a call 1 ms before its blocks."""
    blocks = {b for exit in executor.exits for b in executor.model.exit(exit).blocks}
    found = Measurements.empty(range(1, 11), sorted(blocks))
    now = [0.0]  # the clock that every call reads
    for _ in range(MIN_REPEATS):
        for exit in executor.exits:
            for size in found.sizes:
                call = Call(lambda: now[0])
                now[0] += 1e-3
                for block in executor.model.exit(exit).blocks:
                    call.start(block)
                    now[0] += seconds(block, size)
                call.end()
                found.add(size, call)
        found.repeats += 1
    return found


def test_a_head_and_a_tail_are_predicted_from_their_layers(model_files: dict[str, Path]) -> None:
    """With blocks that are exactly linear, prediction equals the sum over blocks and one call on each side."""
    executor = executor_of(model_files, "residual")

    def seconds(block: int, size: int) -> float:
        return (block + 1) * 1e-4 * size + 2e-5 * block

    profile = build_profile(executor, made_up(executor, seconds), [0.5, 0.6, 0.7])
    for number, exit in enumerate(exit_coefficients(profile, profile), start=1):
        model_exit = executor.model.exit(number)
        for size in (1, 4, 10):
            heads = head_durations(linear(exit.device_s, size))
            tails = tail_durations(linear(exit.edge_s, size))
            for cut in range(exit.layers + 1):
                own = [b for layer in model_exit.layers[:cut] for b in layer.blocks]
                rest = [b for layer in model_exit.layers[cut:] for b in layer.blocks]
                call = 1e-3
                assert heads[cut] == pytest.approx(sum(seconds(b, size) for b in own) + call * (cut > 0))
                assert tails[cut] == pytest.approx(
                    sum(seconds(b, size) for b in rest) + call * (cut < exit.layers)
                )
        np.testing.assert_array_equal(linear(exit.output_bytes, 3), 3 * np.array(model_exit.cut_bytes))


def test_measured_profile_is_complete_and_shared_blocks_agree(
    model_files: dict[str, Path], tmp_path: Path
) -> None:
    executor = executor_of(model_files, "residual")
    repeats = [
        found.repeats for found in measure(executor, np.random.default_rng(0), sizes=(1, 2), repeats=4)
    ]
    assert repeats == [1, 2, 3, 4]
    *_, found = measure(executor, np.random.default_rng(0), sizes=(1, 2), repeats=3)
    profile = build_profile(executor, found, [None, None, None])
    assert profile.model_sha256 == executor.model.sha256
    assert profile.clock == "processor"
    by_blocks: dict[tuple[int, ...], set[tuple[float, float]]] = {}
    for exit, measured in zip(executor.model.exits, profile.exits, strict=True):
        assert len(measured.layers) == len(exit.layers)
        assert [row[0] for row in measured.output_bytes] == list(exit.cut_bytes)
        for layer, times in zip(exit.layers, measured.layers, strict=True):
            by_blocks.setdefault(layer.blocks, set()).add(times.seconds)
            assert all(seconds > 0 for seconds in times.median_s)
            assert times.residual_quantiles["p05"] <= times.residual_quantiles["p95"]
    assert all(len(lines) == 1 for lines in by_blocks.values())
    path = tmp_path / "profile.json"
    path.write_text(profile.to_json())
    assert load_profile(path) == profile


def test_measuring_stops_after_its_limit_but_not_before_enough(model_files: dict[str, Path]) -> None:
    executor = executor_of(model_files, "one_output")
    *_, found = measure(executor, np.random.default_rng(0), sizes=(1,), repeats=10_000, limit_s=0.0)
    assert found.repeats == MIN_REPEATS


def test_the_clock_is_the_given_one(model_files: dict[str, Path]) -> None:
    """A clock that moves by 1 s at each reading: each block takes 1 s, whatever the machine does."""
    executor = executor_of(model_files, "one_output")
    ticks = iter(range(10**9))
    *_, found = measure(
        executor, np.random.default_rng(0), sizes=(1, 5), repeats=3, clock=lambda: next(ticks)
    )
    profile = build_profile(executor, found, [None])
    assert {layer.seconds for layer in profile.exits[0].layers} == {(0.0, 1.0)}
    assert {layer.residual_quantiles["p95"] for layer in profile.exits[0].layers} == {0.0}


def test_a_layer_that_is_not_linear_says_so(model_files: dict[str, Path]) -> None:
    executor = executor_of(model_files, "one_output")

    def seconds(block: int, size: int) -> float:
        return 1e-3 * (1 + size // 4) if block == 1 else 1e-3 * size

    profile = build_profile(executor, made_up(executor, seconds), [None])
    assert [layer.linear for layer in profile.exits[0].layers] == [True, False, True, True]
    steps = [1e-3 * (1 + s // 4) for s in range(1, 11)]
    assert profile.exits[0].layers[1].median_s == pytest.approx(steps)
    # Its table predicts it instead, and no run is off that.
    assert profile.exits[0].layers[1].table_s == pytest.approx(steps)
    assert [layer.table_s is None for layer in profile.exits[0].layers] == [True, False, True, True]
    assert profile.exits[0].layers[1].residual_quantiles["p99"] == pytest.approx(0.0, abs=1e-9)
    for size in (1, 3, 4, 10):
        heads = cut_costs(exit_coefficients(profile, profile, [0.5])[0], size).head_s
        assert np.diff(heads) == pytest.approx(
            [seconds(b, size) + 1e-3 * (b == 0) for b in range(4)], rel=1e-6
        )


@pytest.fixture
def profile(model_files: dict[str, Path]) -> HostProfile:
    executor = executor_of(model_files, "residual")
    return build_profile(executor, made_up(executor, lambda b, s: 1e-3 * s), [0.5, 0.6, 0.7])


def test_coefficients_take_each_side_from_its_own_host(profile: HostProfile) -> None:
    slow = profile.model_copy(update={"call_s": (0.0, 5.0)})
    exits = exit_coefficients(slow, profile)
    for exit in exits:
        assert exit.device_s[0, 1] >= 5
        assert exit.edge_s.max() < 1
    replaced = exit_coefficients(profile, profile, [None, 0.9, None])
    assert [exit.accuracy for exit in replaced] == [0.5, 0.9, 0.7]


def test_profiles_that_do_not_belong_together(profile: HostProfile) -> None:
    other = profile.model_copy(update={"model_sha256": "f" * 64})
    with pytest.raises(OfframpError, match="edge profile"):
        exit_coefficients(profile, other)
    fewer = profile.model_copy(update={"exits": profile.exits[:2]})
    with pytest.raises(OfframpError, match="must have the exits"):
        exit_coefficients(profile, fewer)
    unknown = profile.exits[0].model_copy(update={"accuracy": None})
    bare = profile.model_copy(update={"exits": (unknown, *profile.exits[1:])})
    with pytest.raises(OfframpError, match="accuracy of exit1"):
        exit_coefficients(bare, bare)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"offramp.profile/1"', '"offramp.profile/9"'),
        ('"repeats": 3', '"repeats": 0'),
        ('"sizes": [\n  1,', '"sizes": ['),
        ('"call_s": [\n', '"call_s": [\n -1,'),
    ],
)
def test_a_profile_that_is_not_valid(old: str, new: str, profile: HostProfile, tmp_path: Path) -> None:
    text = profile.to_json()
    assert old in text
    path = tmp_path / "profile.json"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(OfframpError) as caught:
        load_profile(path)
    assert "\n" not in str(caught.value)


def test_what_a_reading_of_the_clock_takes_is_none_of_a_block() -> None:
    """A clock that takes 2 us to be read: blocks of 5 and 1 us are found to take that."""
    now = [0.0]

    def clock() -> float:
        now[0] += 2e-6
        return now[0]

    each_s = reading_s(clock)
    assert each_s == pytest.approx(2e-6)
    call = Call(clock, each_s)
    for block, takes_s in enumerate((5e-6, 1e-6)):
        call.start(block)
        now[0] += takes_s
    call.end()
    assert call.durations_s == pytest.approx([0.0, 5e-6, 1e-6], abs=1e-9)
