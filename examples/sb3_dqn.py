"""Train Stable-Baselines3's DQN on the environment and run what it learned as an Offramp policy.

    python examples/sb3_dqn.py [steps]

The environment shows the paper's state, and the network is the paper's: two hidden layers of 20 tanh units.
"""

from __future__ import annotations

import sys
import warnings

import numpy as np
import torch

from offramp.envs import TaskStreamEnv
from offramp.instance import draw_instance
from offramp.observation import Observation
from offramp.policies import Context, Policy, make_policy
from offramp.scenario import Scenario
from offramp.simulator import simulate
from offramp.task import Decision

with warnings.catch_warnings():
    # It warns of the torch version's own deprecations.
    warnings.simplefilter("ignore")
    from stable_baselines3 import DQN


class BaselinePolicy:
    """A trained DQN, asked for the action of the greatest Q; `guarded` among what finishes in time only."""

    def __init__(self, model: DQN, env: TaskStreamEnv, guarded: bool) -> None:
        self._model, self._env, self._guarded = model, env, guarded

    def decide(self, observation: Observation) -> Decision:
        """The environment's numbers in, the network's action out."""
        numbers = torch.as_tensor(self._env._numbers(observation)).unsqueeze(0)
        with torch.no_grad():
            values = self._model.q_net(numbers)[0].numpy()
        if self._guarded:
            fits = observation.feasible(observation.timeline().finish_s)
            values = np.where(np.concatenate(([True], fits)), values, -np.inf)
        return self._env.actions[int(np.argmax(values))]


def train(scenario: Scenario, steps: int, seed: int) -> tuple[DQN, TaskStreamEnv]:
    """Stable-Baselines3's DQN with Table I's settings and one gradient step a task."""
    env = TaskStreamEnv(scenario, view="paper")
    model = DQN(
        "MlpPolicy",
        env,
        policy_kwargs={"net_arch": [20, 20], "activation_fn": torch.nn.Tanh},
        gamma=0.9,
        buffer_size=100_000,
        batch_size=32,
        learning_rate=0.002,
        learning_starts=1000,
        train_freq=1,
        gradient_steps=1,
        target_update_interval=200,
        exploration_fraction=0.3,
        seed=seed,
        device="cpu",
    )
    model.learn(steps)
    return model, env


def mean_gain(scenario: Scenario, env: TaskStreamEnv, policy: Policy, seeds: range) -> float:
    """Mean total gain on shared streams that nobody was trained on."""
    exits = env.system.exits
    instances = (draw_instance(scenario, exits, np.random.default_rng([seed, 123])) for seed in seeds)
    return float(np.mean([simulate(instance, policy).gain for instance in instances]))


def main() -> None:
    """Train for a while and compare."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 3_000
    scenario = Scenario().changed(p=0.3)
    torch.set_num_threads(1)
    model, env = train(scenario, steps, seed=0)
    seeds = range(10)
    for guarded in (False, True):
        gain = mean_gain(scenario, env, BaselinePolicy(model, env, guarded), seeds)
        print(f"Stable-Baselines3 DQN, {steps} steps{', guarded' * guarded}: {gain:.1f}")
    for name in ("myopic", "ddqn-paper", "ddqn"):
        policy = make_policy(name, Context(env.system, scenario=scenario))
        print(f"{name}: {mean_gain(scenario, env, policy, seeds):.1f}")


if __name__ == "__main__":
    main()
