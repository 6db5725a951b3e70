"""Training of the `ddqn` agent: rounds of simulated experience, a replay memory, double targets, Adam.

Every round draws its chance from a generator of its own and every world from its number, so that a run which was
broken off goes on as if it had not been.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from offramp.equations import FloatArray
from offramp.errors import OfframpError
from offramp.instance import check_predictions, system_of
from offramp.policies.ddqn_kernels import AFTERSTATE, Layers
from offramp.policies.ddqn_paper_learning import family_of
from offramp.policies.network_file import Arrays, Target, policy_bytes
from offramp.policies.outlook import SCENARIO
from offramp.profile import ExitCoefficients
from offramp.scenario import Scenario
from offramp.training.ddqn_rollout import rollout
from offramp.training.ddqn_worlds import MAX_DEVICES, World, draw_world

FEATURES = AFTERSTATE + SCENARIO


@dataclass(frozen=True, slots=True)
class FamilySettings:
    """How the agent is trained.

    Attributes:
        steps: tasks that are played in all.
        worlds, tasks: scenarios side by side, and tasks of each in a round.
        samples: next tasks drawn for each target.
        fresh: worlds replaced by new ones after each round.
        foreign_share: share of the worlds with a network other than the one trained for.
        memory: rounds that the replay memory holds.
        follow: how far the target moves towards the network with each gradient step.
        rate: Adam's step size; it falls to 2 % along half a cosine.
    """

    steps: int = 2_457_600
    target: Target = "double"
    hidden: int = 64
    discount: float = 0.95
    worlds: int = 96
    tasks: int = 64
    samples: int = 3
    fresh: int = 8
    foreign_share: float = 0.5
    epsilon: float = 0.05
    memory: int = 4
    epochs: int = 2
    batch: int = 512
    follow: float = 0.01
    rate: float = 0.001

    @property
    def rounds(self) -> int:
        """Rounds in the run."""
        return self.steps // (self.worlds * self.tasks)


class FamilyLearner:
    """A run of the training. The same seed gives the same network, in one go or in pieces."""

    def __init__(
        self,
        scenario: Scenario,
        exits: tuple[ExitCoefficients, ...],
        settings: FamilySettings,
        seed: int,
    ) -> None:
        check_predictions(exits, set(scenario.sizes.values), "scenario")
        round_steps = settings.worlds * settings.tasks
        if settings.steps < round_steps:
            raise OfframpError("steps", settings.steps, f"must be at least {round_steps}", "train for longer")
        self.settings, self._scenario, self._exits, self._seed = settings, scenario, exits, seed
        rng = np.random.default_rng([seed, 0])
        hidden = settings.hidden
        self._online = Layers(
            rng.normal(0.0, FEATURES**-0.5, (FEATURES, hidden)),
            np.zeros(hidden),
            rng.normal(0.0, (2.0 / hidden) ** 0.5, (hidden, hidden)),
            np.zeros(hidden),
            np.zeros(hidden),
        )
        self._target = Layers(*(array.copy() for array in self._online))
        self._mean = Layers(*(np.zeros_like(array) for array in self._online))
        self._square = Layers(*(np.zeros_like(array) for array in self._online))
        self._updates = 0
        self._round = 0
        self._drawn = 0
        self._numbers = np.zeros(settings.worlds, np.int64)
        self._low, self._high = np.full(SCENARIO, np.inf), np.full(SCENARIO, -np.inf)
        self._worlds = [self._next_world(place) for place in range(settings.worlds)]
        self._memory: list[tuple[FloatArray, FloatArray]] = []

    @property
    def done(self) -> int:
        """Tasks played so far."""
        return self._round * self.settings.worlds * self.settings.tasks

    @property
    def steps(self) -> int:
        """Tasks that the whole run plays."""
        return self.settings.rounds * self.settings.worlds * self.settings.tasks

    @property
    def identity(self) -> str:
        """Which run this is: a checkpoint of another is refused."""
        family = family_of(system_of(self._scenario, self._exits), self._scenario)
        return f"ddqn {family} seed {self._seed} {self.settings}"

    @property
    def finished(self) -> bool:
        """Whether all rounds are done."""
        return self._round >= self.settings.rounds

    def _next_world(self, place: int) -> World:
        world = self._world(self._drawn)
        self._numbers[place] = self._drawn
        self._drawn += 1
        self._low = np.minimum(self._low, world.view.features)
        self._high = np.maximum(self._high, world.view.features)
        return world

    def _world(self, number: int) -> World:
        rng = np.random.default_rng([self._seed, 1, number])
        return draw_world(self._scenario, self._exits, self.settings.foreign_share, rng)

    def advance(self) -> float:
        """One round; gives the mean gain of its tasks over the greatest gain, exploration included."""
        settings = self.settings
        rng = np.random.default_rng([self._seed, 2, self._round])
        features, targets, gain = [], [], 0.0
        for world in self._worlds:
            seen, wanted, earned = self._play(world, rng)
            features.append(seen)
            targets.append(wanted)
            gain += earned / len(self._worlds)
        self._memory = [*self._memory, (np.concatenate(features), np.concatenate(targets))][
            -settings.memory :
        ]
        all_features = np.concatenate([entry[0] for entry in self._memory])
        all_targets = np.concatenate([entry[1] for entry in self._memory])
        passed = self._round / settings.rounds
        rate = settings.rate * min(1.0, (self._round + 1) / 5) * max(0.02, 0.5 * (1 + np.cos(np.pi * passed)))
        for _ in range(settings.epochs):
            order = rng.permutation(len(all_targets))[: settings.worlds * settings.tasks]
            for start in range(0, len(order), settings.batch):
                rows = order[start : start + settings.batch]
                self._step(all_features[rows], all_targets[rows], rate)
        self._round += 1
        for place in rng.choice(settings.worlds, min(settings.fresh, settings.worlds), replace=False):
            self._worlds[place] = self._next_world(int(place))
        return gain

    def _play(self, world: World, rng: np.random.Generator) -> tuple[FloatArray, FloatArray, float]:
        """Features and targets of a rollout, and its mean gain. Values are relative to the world's own rate."""
        settings = self.settings
        gaps_s, sizes, devices = world.draw(rng, settings.tasks, settings.samples)
        seen, targets, gains, world.edge_lag_s = rollout(
            world.columns,
            world.demand.budget_s,
            world.view,
            # Line 12 as printed takes the target network's own maximum.
            self._online if settings.target == "double" else self._target,
            self._target,
            settings.discount,
            settings.epsilon,
            world.lags_s,
            world.edge_lag_s,
            gaps_s,
            sizes,
            devices,
            rng.random((settings.tasks, 2)),
        )
        earned = float(gains[1:].mean() / world.view.scale[2])
        if world.rate is None:
            world.rate = 0.9 * earned
        targets = targets - world.rate
        world.rate += 0.1 * float((targets - forward(self._online, seen)[2]).mean())
        return seen, targets, earned

    def _step(self, features: FloatArray, targets: FloatArray, rate: float) -> None:
        self._updates += 1
        mean_left, square_left = 1.0 - 0.9**self._updates, 1.0 - 0.999**self._updates
        gradients = gradient(self._online, features, targets)
        for weights, target, slope, mean, square in zip(
            self._online, self._target, gradients, self._mean, self._square, strict=True
        ):
            mean += 0.1 * (slope - mean)
            square += 0.001 * (slope**2 - square)
            weights -= rate * (mean / mean_left) / (np.sqrt(square / square_left) + 1e-8)
            target += self.settings.follow * (weights - target)

    def to_bytes(self) -> bytes:
        """The target network, which is the mean of the last ones, as a policy file."""
        arrays = {name: array.astype(np.float32) for name, array in self._target._asdict().items()}
        return policy_bytes(
            arrays | {"low": self._low, "high": self._high},
            algorithm="ddqn",
            target=self.settings.target,
            discount=self.settings.discount,
            timing="paper",
            devices=MAX_DEVICES,
            family=None,
            training=asdict(self.settings) | {"seed": self._seed},
        )

    def checkpoint(self) -> Arrays:
        """Everything that the run needs to go on."""
        lags_s = np.zeros((len(self._worlds), MAX_DEVICES))
        for row, world in zip(lags_s, self._worlds, strict=True):
            row[: len(world.lags_s)] = world.lags_s
        arrays: Arrays = {
            "counts": np.array([self._round, self._updates, self._drawn]),
            "numbers": self._numbers,
            "lags_s": lags_s,
            "edge_lags_s": np.array([world.edge_lag_s for world in self._worlds]),
            "rates": np.array([np.nan if world.rate is None else world.rate for world in self._worlds]),
            "low": self._low,
            "high": self._high,
            "memory_features": np.concatenate(
                [np.zeros((0, FEATURES)), *(entry[0] for entry in self._memory)]
            ),
            "memory_targets": np.concatenate([np.zeros(0), *(entry[1] for entry in self._memory)]),
        }
        for kind in ("online", "target", "mean", "square"):
            for name, array in getattr(self, f"_{kind}")._asdict().items():
                arrays[f"{kind}.{name}"] = array
        return arrays

    def restore(self, arrays: Arrays) -> None:
        """Go on from a checkpoint of the same run. OfframpError if its arrays do not fit."""
        own = self.checkpoint()
        if arrays.keys() != own.keys() or arrays["lags_s"].shape != own["lags_s"].shape:
            raise OfframpError("checkpoint", sorted(arrays), "is of another run", "start without --resume")
        self._round, self._updates, self._drawn = (int(count) for count in arrays["counts"])
        self._numbers = arrays["numbers"].copy()
        self._worlds = [self._world(int(number)) for number in self._numbers]
        for place, world in enumerate(self._worlds):
            world.lags_s[:] = arrays["lags_s"][place, : len(world.lags_s)]
            world.edge_lag_s = float(arrays["edge_lags_s"][place])
            rate = float(arrays["rates"][place])
            world.rate = None if np.isnan(rate) else rate
        self._low, self._high = arrays["low"].copy(), arrays["high"].copy()
        for kind in ("online", "target", "mean", "square"):
            for name, array in getattr(self, f"_{kind}")._asdict().items():
                array[:] = arrays[f"{kind}.{name}"]
        size = self.settings.worlds * self.settings.tasks
        self._memory = [
            (arrays["memory_features"][start : start + size], arrays["memory_targets"][start : start + size])
            for start in range(0, len(arrays["memory_targets"]), size)
        ]


def forward(layers: Layers, features: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Both hidden layers and the values, for many rows at once."""
    low = np.maximum(features @ layers.first + layers.first_bias, 0.0)
    high = np.maximum(low @ layers.second + layers.second_bias, 0.0)
    return low, high, high @ layers.out


def gradient(layers: Layers, features: FloatArray, targets: FloatArray) -> Layers:
    """Gradient of half the mean squared error."""
    low, high, values = forward(layers, features)
    slope = (values - targets) / len(targets)
    above = slope[:, None] * layers.out * (high > 0)
    below = (above @ layers.second.T) * (low > 0)
    return Layers(features.T @ below, below.sum(axis=0), low.T @ above, above.sum(axis=0), high.T @ slope)
