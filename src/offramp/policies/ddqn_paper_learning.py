"""Algorithm 2 around its compiled loop: what is learned, from which seed, and how far it has got.

The algorithm's lines are in `ddqn_paper_kernels.learn`; this module draws the chance that they consume, chunk by chunk,
each chunk from a generator of its own, so that a run which was broken off goes on as if it had not been.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

import numpy as np

from offramp.bulk import draw_stretch
from offramp.errors import OfframpError
from offramp.instance import check_predictions
from offramp.options import System
from offramp.policies import ddqn_paper_kernels as kernels
from offramp.policies.network_file import Arrays, Target, policy_bytes
from offramp.policies.outlook import columns_by_kind, device_kinds
from offramp.policies.stream_kernels import STATE, World
from offramp.scenario import Scenario

CHUNK = 2000
"""Tasks between two reports, and between two points at which a run can be broken off."""

SEARCHES = 5
"""Rows of the learner's flat array: online network, target network, gradient, and Adam's two moments."""


@dataclass(frozen=True, slots=True)
class PaperSettings:
    """Table I, and what the paper leaves open.

    Attributes:
        steps: tasks that are played, lines 4 and 6 together.
        hidden, discount, memory: Table I.
        target: `double` as the paper's text says, `plain` as its line 12 prints.
        stride: tasks between two gradient steps.
        batch: transitions in a gradient step.
        reset: gradient steps between two resets of the target, C of line 14.
        rate: Adam's step size; over the second half of the run it falls in a line towards 0.
        exploring: share of the run over which ε falls from 1 to `epsilon`.
    """

    steps: int = 20_000
    target: Target = "double"
    hidden: int = 20
    discount: float = 0.9
    memory: int = 100_000
    stride: int = 2
    batch: int = 32
    reset: int = 200
    rate: float = 0.002
    exploring: float = 0.3
    epsilon: float = 0.05


def shapes(actions: int, hidden: int) -> dict[str, tuple[int, ...]]:
    """The arrays of a network with that many actions, in the order of `Network`."""
    return {
        "first": (STATE, hidden),
        "first_bias": (hidden,),
        "second": (hidden, hidden),
        "second_bias": (hidden,),
        "out": (actions, hidden),
        "out_bias": (actions,),
    }


def network_of(
    flat: np.ndarray[tuple[int], np.dtype[np.float64]], actions: int, hidden: int
) -> kernels.Network:
    """A network whose arrays are views of one flat array."""
    views, start = [], 0
    for shape in shapes(actions, hidden).values():
        end = start + int(np.prod(shape))
        views.append(flat[start:end].reshape(shape))
        start = end
    return kernels.Network(*views)


def options_identity(system: System) -> str:
    """Identity of what can be chosen: coefficients, kinds of devices, gain."""
    return _digest(
        {
            "exits": [
                [
                    *(
                        exit.accuracy,
                        exit.device_s.tolist(),
                        exit.edge_s.tolist(),
                        exit.output_bytes.tolist(),
                    ),
                    *(asdict(coded) for coded in exit.codecs),
                    *(asdict(table) for table in exit.tables),
                ]
                for exit in system.exits
            ],
            "kinds": [system.kind(device) for device in range(system.devices)],
            "gain": asdict(system.gain),
        }
    )


def family_of(system: System, scenario: Scenario) -> str:
    """Identity of the decisions that a network is learned for: what can be chosen, and what is asked."""
    asked = scenario.model_dump(mode="json", include={"slot_s", "k", "arrivals", "sizes", "devices"})
    return f"{options_identity(system)}-{_digest(asked)}"


def _digest(content: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


class PaperLearner:
    """A run of Algorithm 2 for one scenario. The same seed gives the same network, in one go or in pieces."""

    def __init__(self, system: System, scenario: Scenario, settings: PaperSettings, seed: int) -> None:
        check_predictions(system.exits, set(scenario.sizes.values), "scenario")
        if settings.steps < CHUNK:
            raise OfframpError("steps", settings.steps, f"must be at least {CHUNK}", "train for longer")
        self.settings, self._scenario, self._seed = settings, scenario, seed
        self.family = family_of(system, scenario)
        sizes = scenario.sizes.values
        head_s, upload_s, tail_s, gain = columns_by_kind(system, sizes)
        budget_s = np.array([scenario.budget_s(size) for size in sizes])
        self._world = World(
            head_s,
            upload_s,
            tail_s,
            gain,
            budget_s,
            np.array(sizes, dtype=np.float64),
            device_kinds(system)[0],
        )
        self._scale = np.array([float(max(sizes)), float(budget_s.max())])
        self.actions = gain.shape[2] + 1
        weights = sum(int(np.prod(shape)) for shape in shapes(self.actions, settings.hidden).values())
        self._flat = np.zeros((SEARCHES, weights))
        self._networks = [network_of(row, self.actions, settings.hidden) for row in self._flat[:3]]
        self._initialise(np.random.default_rng([seed, 0]))
        self._memory = kernels.Memory(
            np.zeros((settings.memory, STATE)),
            np.zeros((settings.memory, STATE)),
            np.zeros((settings.memory, self.actions), np.bool_),
            np.zeros(settings.memory, np.int64),
            np.zeros(settings.memory),
            np.zeros(1, np.int64),
            np.zeros(system.devices + 1),
        )
        self.done = 0

    def _initialise(self, rng: np.random.Generator) -> None:
        online = self._networks[0]
        for weights, fan_in in ((online.first, STATE), (online.second, self.settings.hidden)):
            weights[:] = rng.uniform(-1.0, 1.0, weights.shape) * np.sqrt(3.0 / fan_in)
        online.out[:] = rng.uniform(-0.1, 0.1, online.out.shape)
        self._flat[1] = self._flat[0]

    @property
    def steps(self) -> int:
        """Tasks that the whole run plays."""
        return self.settings.steps

    @property
    def identity(self) -> str:
        """Which run this is: a checkpoint of another is refused."""
        return f"ddqn-paper {self.family} seed {self._seed} {self.settings}"

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.done >= self.settings.steps

    def advance(self) -> float:
        """Play and learn from one chunk of tasks; gives the mean gain of its tasks, exploration included."""
        settings = self.settings
        tasks = min(CHUNK, settings.steps - self.done)
        rng = np.random.default_rng([self._seed, 1, self.done])
        scenario = self._scenario
        draws = kernels.Chance(
            *draw_stretch(scenario, tasks, rng),
            rng.random((tasks, 2)),
            rng.random((tasks, settings.batch)),
        )
        passed = (self.done + np.arange(tasks)) / settings.steps
        online, target, gradient = self._networks
        gain = kernels.learn(
            self._world,
            self._scale,
            self._memory,
            draws,
            online,
            target,
            gradient,
            self._flat,
            self.done,
            settings.stride,
            settings.reset,
            settings.target == "double",
            settings.discount,
            settings.rate * np.clip((1.0 - passed) / 0.5, 0.02, 1.0),
            np.clip(1.0 - passed / settings.exploring, settings.epsilon, 1.0),
        )
        self.done += tasks
        return float(gain) / max(tasks - 1, 1)

    def to_bytes(self) -> bytes:
        """The network as a policy file."""
        return policy_bytes(
            self._policy_arrays(),
            algorithm="ddqn-paper",
            target=self.settings.target,
            discount=self.settings.discount,
            timing="paper",
            devices=self._scenario.devices,
            family=self.family,
            training=asdict(self.settings) | {"seed": self._seed},
        )

    def _policy_arrays(self) -> Arrays:
        """The network as a policy file keeps it, and the state's scale."""
        online = self._networks[0]._asdict()
        return {name: array.astype(np.float32) for name, array in online.items()} | {"scale": self._scale}

    def checkpoint(self) -> Arrays:
        """Everything that the run needs to go on."""
        filled = min(int(self._memory.cursor[0]), self.settings.memory)
        memory = {
            name: array if name in ("cursor", "now") else array[: max(filled, 1)]
            for name, array in self._memory._asdict().items()
        }
        return memory | {"flat": self._flat, "done": np.array([self.done])}

    def restore(self, arrays: Arrays) -> None:
        """Go on from a checkpoint of the same family and seed. OfframpError if its arrays do not fit."""
        own = self.checkpoint()
        if arrays.keys() != own.keys() or arrays["flat"].shape != self._flat.shape:
            raise OfframpError("checkpoint", sorted(arrays), "is of another run", "start without --resume")
        self._flat[:] = arrays["flat"]
        self.done = int(arrays["done"][0])
        for name, array in self._memory._asdict().items():
            array[: len(arrays[name])] = arrays[name]
