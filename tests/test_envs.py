"""The environments: what Gymnasium and Stable-Baselines3 ask of one, and what the simulator says of its streams."""

from __future__ import annotations

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from hypothesis import given
from hypothesis import strategies as st

from offramp.compiled_env import TaskStreamVectorEnv
from offramp.envs import ENV_ID, TaskStreamEnv
from offramp.errors import OfframpError
from offramp.instance import Instance
from offramp.policies import Context, make_policy
from offramp.profile import ExitCoefficients
from offramp.scenario import Scenario
from offramp.simulator import simulate
from offramp.task import Decision

Exits = tuple[ExitCoefficients, ...]


@pytest.mark.parametrize("view", ["paper", "full"])
def test_gymnasium_and_stable_baselines_accept_it(four_exits: Exits, view: str) -> None:
    made = gymnasium.make(f"offramp.envs:{ENV_ID}", scenario=Scenario(tasks=20), exits=four_exits, view=view)
    check_env(made.unwrapped)
    from stable_baselines3.common.env_checker import check_env as check_for_baselines

    check_for_baselines(made.unwrapped)


def test_it_stands_in_the_registry_single_and_vector(four_exits: Exits) -> None:
    one = gymnasium.make(ENV_ID, exits=four_exits)
    assert one.action_space.n == sum(exit.layers + 1 for exit in four_exits) + 1
    many = gymnasium.make_vec(ENV_ID, num_envs=3, vectorization_mode="vector_entry_point", exits=four_exits)
    assert many.num_envs == 3
    assert many.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    assert many.single_action_space == one.action_space
    assert many.action_space.shape == (3,)


@given(
    seed=st.integers(0, 1000),
    devices=st.integers(1, 5),
    p=st.sampled_from([0.05, 0.3, 0.9]),
    k=st.floats(0.5, 8),
)
def test_vector_streams_are_the_single_ones(
    four_exits: Exits, seed: int, devices: int, p: float, k: float
) -> None:
    """Stream i of seed s is the single environment's of seed s + i: observations, masks, gains, ends."""
    scenario = Scenario(tasks=12, devices=devices, k=k).changed(p=p)
    many = TaskStreamVectorEnv(3, scenario, four_exits)
    singles = [TaskStreamEnv(scenario, four_exits) for _ in range(3)]
    seen, info = many.reset(seed=seed)
    for i, single in enumerate(singles):
        alone, alone_info = single.reset(seed=seed + i)
        np.testing.assert_allclose(seen[i], alone, atol=1e-6)
        np.testing.assert_array_equal(info["action_mask"][i], alone_info["action_mask"])
    rng = np.random.default_rng(seed)
    for step in range(30):
        actions = rng.integers(many.single_action_space.n, size=3)
        seen, rewards, ended, cut_off, info = many.step(actions)
        assert not ended.any()
        for i, single in enumerate(singles):
            if step % 13 == 12:
                alone, alone_info = single.reset()
                reward, truncated = 0.0, False
            else:
                alone, reward, _, truncated, alone_info = single.step(actions[i])
            np.testing.assert_allclose(seen[i], alone, atol=1e-6)
            np.testing.assert_array_equal(info["action_mask"][i], alone_info["action_mask"])
            assert rewards[i] == pytest.approx(reward, abs=1e-12)
            assert cut_off[i] == truncated


def test_rewards_are_the_simulators_gains(four_exits: Exits) -> None:
    """The same tasks under `myopic`, played in the environment and laid out by the simulator."""
    env = TaskStreamEnv(Scenario(tasks=50).changed(p=0.3), four_exits)
    env.reset(seed=5)
    tasks = tuple(env._tasks[:50])
    policy = make_policy("myopic", Context(env.system))
    total, truncated = 0.0, False
    while not truncated:
        decision = policy.decide(env._observation)
        _, reward, _, truncated, _ = env.step(env.actions.index(decision))
        total += reward
    schedule = simulate(Instance(env.system, tasks), make_policy("myopic", Context(env.system)))
    assert total == pytest.approx(schedule.gain)


def test_the_mask_says_what_finishes_in_time(four_exits: Exits) -> None:
    env = TaskStreamEnv(Scenario(tasks=40).changed(p=0.5), four_exits)
    _, info = env.reset(seed=1)
    rng = np.random.default_rng(1)
    late = 0
    for _ in range(40):
        action = int(rng.integers(env.action_space.n))
        allowed = info["action_mask"][action]
        _, reward, _, _, info = env.step(action)
        assert (reward > 0) == bool(allowed and action)
        late += not allowed
    assert late > 0


def test_actions_cover_every_option(four_exits: Exits) -> None:
    env = TaskStreamEnv(Scenario(), four_exits)
    table = env.system.options(0, 5)
    assert env.actions[0].exit == 0
    assert env.actions[1:] == [
        Decision(int(exit), int(cut)) for exit, cut in zip(table.exit, table.cut, strict=True)
    ]


def test_seeds_repeat_and_differ(four_exits: Exits) -> None:
    many = TaskStreamVectorEnv(4, Scenario(), four_exits)
    first, _ = many.reset(seed=3)
    again, _ = many.reset(seed=3)
    other, _ = many.reset(seed=100)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    following, _ = many.reset()
    assert not np.array_equal(following, other)


@pytest.mark.parametrize("action", [-1, 10_000])
def test_an_action_out_of_range_is_refused(four_exits: Exits, action: int) -> None:
    one = TaskStreamEnv(Scenario(), four_exits)
    one.reset(seed=0)
    with pytest.raises(OfframpError, match=r"action = .*must be in 0\.\."):
        one.step(action)
    many = TaskStreamVectorEnv(2, Scenario(), four_exits)
    many.reset(seed=0)
    with pytest.raises(OfframpError, match="actions"):
        many.step(np.array([0, action]))


def test_a_step_after_the_end_is_refused(four_exits: Exits) -> None:
    env = TaskStreamEnv(Scenario(tasks=1), four_exits)
    env.reset(seed=0)
    assert env.step(0)[3]
    with pytest.raises(OfframpError, match="the episode is over"):
        env.step(0)


def test_other_arrivals_and_listed_sizes(four_exits: Exits) -> None:
    scenario = Scenario.model_validate(
        {
            "tasks": 5,
            "arrivals": {"kind": "poisson", "rate_per_s": 20.0},
            "sizes": {"kind": "listed", "values": [4, 2]},
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen, _ = TaskStreamVectorEnv(6, scenario, four_exits).reset(seed=0)
    assert set(np.unique(seen[:, 0])) == {0.5, 1.0}
