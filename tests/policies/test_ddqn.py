"""The learned policies: what they choose, how well, what they refuse, and that training repeats itself."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp.errors import OfframpError
from offramp.instance import Instance, draw_instance, system_of
from offramp.observation import Backlog, Observation
from offramp.policies import Context, Policy, make_policy
from offramp.policies import ddqn_kernels as kernels
from offramp.policies.ddqn_paper_learning import PaperLearner, PaperSettings
from offramp.policies.network_file import parse_policy
from offramp.policies.outlook import demand_of, look_out
from offramp.profile import ExitCoefficients
from offramp.scenario import Scenario
from offramp.simulator import simulate
from offramp.solvers.exact import Exact
from offramp.state import make_state
from offramp.training.ddqn_learning import FamilyLearner, FamilySettings, forward, gradient
from offramp.training.policy import checkpoint_path, prepare, train

Exits = tuple[ExitCoefficients, ...]
LEARNED = ("ddqn", "ddqn-paper")
SMALL = FamilySettings(steps=3 * 8 * 16, worlds=8, tasks=16, fresh=2)
PAPER = PaperSettings(steps=6000)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks learned on first use stay in this run's own folder."""
    monkeypatch.setenv("OFFRAMP_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def drawn(scenario: Scenario, exits: Exits, seed: int) -> Instance:
    return draw_instance(scenario, exits, np.random.default_rng([seed, 77]))


def made(name: str, instance: Instance, **more: object) -> Policy:
    return make_policy(name, Context(instance.system, scenario=instance.scenario, **more))  # type: ignore[arg-type]


def mean_gain(name: str, scenario: Scenario, exits: Exits, seeds: range) -> float:
    total = 0.0
    for seed in seeds:
        instance = drawn(scenario, exits, seed)
        total += simulate(instance, made(name, instance)).gain
    return total / len(seeds)


CELLS = [(2, 0.2, 2), (3, 0.1, 3), (3, 0.3, 3), (5, 0.2, 2), (8, 0.3, 2)]


@pytest.mark.parametrize(("k", "p", "devices"), CELLS)
def test_they_close_the_distance_from_myopic_to_the_optimum(
    four_exits: Exits, k: int, p: float, devices: int
) -> None:
    """On a network that the bundled file was not trained for, and seeds that nothing was trained on."""
    scenario = Scenario().changed(k=k, p=p, devices=devices)
    seeds = range(3)
    optimum = np.mean([Exact(max_labels=1000).solve(drawn(scenario, four_exits, s)).gain for s in seeds])
    myopic = mean_gain("myopic", scenario, four_exits, seeds)
    greedy = mean_gain("greedy", scenario, four_exits, seeds)
    assert optimum > 1.02 * myopic
    for name in LEARNED:
        gain = mean_gain(name, scenario, four_exits, seeds)
        assert gain >= greedy
        assert (gain - myopic) / (optimum - myopic) >= 0.5, name


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("timing", ["paper", "network"])
def test_the_guard_takes_only_what_is_predicted_to_be_on_time(
    four_exits: Exits, name: str, timing: str
) -> None:
    instance = drawn(Scenario(tasks=200).changed(p=0.5, k=2), four_exits, 0)
    policy = made(name, instance)
    state = make_state(instance.system, timing)  # type: ignore[arg-type]
    for task in instance.tasks:
        seen = state.observe(task)
        decision = policy.decide(seen)
        if decision.exit:
            row = seen.options.index(decision.exit, decision.cut)
            assert seen.feasible(seen.timeline().finish_s)[row]
        state.commit(seen, decision)


@given(lag_s=st.floats(0, 0.3), edge_s=st.floats(0, 0.3), order=st.permutations([1, 2, 3, 4]))
def test_ddqn_does_not_mind_the_order_of_the_other_devices(
    four_exits: Exits, lag_s: float, edge_s: float, order: list[int]
) -> None:
    scenario = Scenario(devices=5)
    view = look_out(system_of(scenario, four_exits), demand_of(scenario))
    lags_s = np.array([lag_s, 0.0, 0.02, 0.1, 0.25])
    own_s, after_s = np.array([lag_s, 0.2]), np.array([edge_s, 0.2])
    one = kernels.afterstate_features(view, lags_s, 0, own_s, after_s)
    other = kernels.afterstate_features(view, lags_s[[0, *order]], 0, own_s, after_s)
    np.testing.assert_allclose(one, other, rtol=1e-12)


def test_the_gain_table_is_what_an_idle_and_a_busy_system_earn(four_exits: Exits) -> None:
    """The table's corners against the option tables themselves."""
    scenario = Scenario()
    system = system_of(scenario, four_exits)
    demand = demand_of(scenario)
    tables = [system.options(0, size) for size in demand.sizes]
    columns = [
        np.stack([getattr(t, name) for t in tables]) for name in ("head_s", "upload_s", "tail_s", "gain")
    ]
    table = kernels.next_gain_table(*columns, demand.share, demand.budget_s, 9, demand.budget_s.max() / 8)
    idle = sum(
        share * max(t.gain[t.head_s + t.upload_s + t.tail_s <= budget_s + 1e-9], default=0.0)
        for share, t, budget_s in zip(demand.share, tables, demand.budget_s, strict=True)
    )
    assert table[0, 0] == pytest.approx(idle)
    assert table[-1, 0] == pytest.approx(0.0)
    assert (np.diff(table, axis=0) <= 1e-12).all()
    assert (np.diff(table, axis=1) <= 1e-12).all()


def test_surviving_rows_are_the_undominated_ones() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        send_s, release_s, gain = rng.integers(0, 5, (3, 12)).astype(float)
        kept = set(kernels.surviving(send_s, release_s, release_s, gain, 3.0).tolist())
        points = list(zip(send_s, release_s, -gain, strict=True))
        fits = [row for row in range(12) if release_s[row] <= 3.0]
        for row in fits:
            beaten = any(
                points[other] != points[row]
                and all(a <= b for a, b in zip(points[other], points[row], strict=True))
                for other in fits
            )
            assert not (beaten and row in kept)
        assert {points[row] for row in kept} == {
            points[row]
            for row in fits
            if not any(
                points[o] != points[row] and all(a <= b for a, b in zip(points[o], points[row], strict=True))
                for o in fits
            )
        }


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("where", ["device", "edge"])
def test_a_state_that_is_not_a_number_is_refused(four_exits: Exits, name: str, where: str) -> None:
    instance = drawn(Scenario(), four_exits, 0)
    policy = made(name, instance)
    lag_s = np.full(3, np.nan if where == "device" else -np.inf)
    edge_s = np.full(1, np.nan if where == "edge" else -np.inf)
    task = instance.tasks[0]
    options = instance.system.options(task.device, task.size)
    seen = Observation(task, task.arrival_s, options, Backlog(lag_s, lag_s, np.empty(0), edge_s))
    with pytest.raises(OfframpError, match="NaN"):
        policy.decide(seen)


def test_more_devices_than_the_network_knows(
    four_exits: Exits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The bundled file gives way to a named fallback and says so; a file that the user named is refused."""
    instance = drawn(Scenario(devices=40), four_exits, 0)
    with caplog.at_level(logging.WARNING):
        policy = made("ddqn", instance)
    assert "the network knows up to 16" in caplog.text
    assert "`myopic` decides in its place" in caplog.text
    done = simulate(instance, policy)
    assert done.notice is not None
    assert done.tasks == simulate(instance, made("myopic", instance)).tasks
    file = tmp_path / "own"
    file.write_bytes(FamilyLearner(Scenario(), four_exits, SMALL, 0).to_bytes())
    with pytest.raises(OfframpError, match="devices"):
        made("ddqn", instance, policy_file=file)


def test_a_scenario_outside_the_family(
    four_exits: Exits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    instance = drawn(Scenario().changed(p=1e-6), four_exits, 0)
    with caplog.at_level(logging.WARNING):
        made("ddqn", instance)
    assert "log of gap / budget" in caplog.text
    file = tmp_path / "own"
    file.write_bytes(FamilyLearner(Scenario(), four_exits, SMALL, 0).to_bytes())
    with pytest.raises(OfframpError, match="log of gap / budget"):
        made("ddqn", instance, policy_file=file)


def test_a_paper_network_is_of_one_scenario(
    four_exits: Exits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scenario = Scenario()
    learner = PaperLearner(system_of(scenario, four_exits), scenario, PAPER, 0)
    learner.advance()
    file = tmp_path / "own"
    file.write_bytes(learner.to_bytes())
    instance = drawn(scenario, four_exits, 0)
    simulate(instance, made("ddqn-paper", instance, policy_file=file))
    other = drawn(scenario.changed(k=2), four_exits, 0)
    with pytest.raises(OfframpError, match="family"):
        made("ddqn-paper", other, policy_file=file)
    with pytest.raises(OfframpError, match="devices"):
        made("ddqn-paper", drawn(Scenario(devices=4), four_exits, 0), policy_file=file)
    with pytest.raises(OfframpError, match="use --policy ddqn-paper"):
        made("ddqn", instance, policy_file=file)
    simulate(instance, made("ddqn-paper", replace(instance, scenario=None), policy_file=file))
    foreign = draw_instance(scenario, tuple(reversed(four_exits)), np.random.default_rng(0))
    with pytest.raises(OfframpError, match="family"):
        made("ddqn-paper", replace(foreign, scenario=None), policy_file=file)
    with caplog.at_level(logging.WARNING):
        policy = made("ddqn-paper", replace(instance, scenario=None))
    assert "scenario is not known" in caplog.text
    done = simulate(instance, policy)
    assert done.notice is not None
    assert done.tasks == simulate(instance, made("myopic", instance)).tasks


def test_without_a_scenario_ddqn_estimates_and_does_nearly_as_well(four_exits: Exits) -> None:
    scenario = Scenario(tasks=400).changed(p=0.3)
    instance = drawn(scenario, four_exits, 1)
    told = simulate(instance, made("ddqn", instance)).gain
    blind = replace(instance, scenario=None)
    estimated = simulate(blind, made("ddqn", blind)).gain
    myopic = simulate(instance, made("myopic", instance)).gain
    assert myopic < estimated
    assert (estimated - myopic) / (told - myopic) > 0.8


def test_the_gradient_is_the_slope_of_the_error(four_exits: Exits) -> None:
    learner = FamilyLearner(Scenario(), four_exits, SMALL, 0)
    rng = np.random.default_rng(0)
    layers = learner._online._replace(out=rng.normal(size=SMALL.hidden))
    features = rng.normal(size=(16, layers.first.shape[0]))
    targets = rng.normal(size=16)

    def error() -> float:
        return float(0.5 * np.mean((forward(layers, features)[2] - targets) ** 2))

    for array, slope in zip(layers, gradient(layers, features, targets), strict=True):
        place = tuple(int(rng.integers(length)) for length in array.shape)
        kept, step = array[place], 1e-6
        array[place] = kept + step
        above = error()
        array[place] = kept - step
        below = error()
        array[place] = kept
        assert slope[place] == pytest.approx((above - below) / (2 * step), abs=1e-6)


@pytest.mark.parametrize("target", ["double", "plain"])
@pytest.mark.parametrize("algorithm", LEARNED)
def test_broken_off_and_resumed_gives_the_same_file(
    four_exits: Exits, tmp_path: Path, algorithm: str, target: str
) -> None:
    """One run in one go; one that Ctrl-C breaks off after its first piece and that is resumed."""
    scenario = Scenario()

    def learner() -> PaperLearner | FamilyLearner:
        if algorithm == "ddqn":
            return FamilyLearner(scenario, four_exits, replace(SMALL, target=target), 3)  # type: ignore[arg-type]
        settings = replace(PAPER, target=target)  # type: ignore[arg-type]
        return PaperLearner(system_of(scenario, four_exits), scenario, settings, 3)

    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    train(learner(), whole)

    def interrupt(done: int, gain: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(learner(), pieces, report=interrupt)
    assert not pieces.exists()
    resumed = learner()
    prepare(resumed, pieces, resume=True)
    train(resumed, pieces)
    assert pieces.read_bytes() == whole.read_bytes()
    assert not checkpoint_path(pieces).exists()
    header = parse_policy(whole.read_bytes(), "whole").header
    assert (header.algorithm, header.target) == (algorithm, target)


def test_a_run_is_resumed_from_its_own_checkpoint_only(four_exits: Exits, tmp_path: Path) -> None:
    system = system_of(Scenario(), four_exits)
    file = tmp_path / "policy"
    with pytest.raises(OfframpError, match="there is no checkpoint"):
        prepare(PaperLearner(system, Scenario(), PAPER, 0), file, resume=True)
    ticks = iter(range(0, 10_000, 100))

    def interrupt(done: int, gain: float) -> None:
        if done >= 4000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(PaperLearner(system, Scenario(), PAPER, 0), file, report=interrupt, clock=lambda: next(ticks))
    with pytest.raises(OfframpError, match="run"):
        prepare(PaperLearner(system, Scenario(), PAPER, 1), file, resume=True)
    with pytest.raises(OfframpError, match="no such folder"):
        prepare(PaperLearner(system, Scenario(), PAPER, 0), tmp_path / "none" / "policy", resume=False)


def test_seeds_make_a_difference(four_exits: Exits) -> None:
    system = system_of(Scenario(), four_exits)
    files = []
    for seed in (0, 0, 1):
        learner = PaperLearner(system, Scenario(), PAPER, seed)
        learner.advance()
        files.append(parse_policy(learner.to_bytes(), "file").arrays["out"])
    np.testing.assert_array_equal(files[0], files[1])
    assert not np.array_equal(files[0], files[2])


def test_devices_of_two_kinds(four_exits: Exits) -> None:
    scenario = Scenario.model_validate(
        {"devices": 2, "device_slowdown": (10.0, 40.0), "bandwidth_bytes_per_s": (125_000.0, 500_000.0)}
    ).changed(p=0.3)
    myopic = mean_gain("myopic", scenario, four_exits, range(4))
    for name in LEARNED:
        assert mean_gain(name, scenario, four_exits, range(4)) > myopic
