"""The vector form of `offramp/TaskStream-v0`: many streams, each step one call of a compiled loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from offramp.bulk import draw_stretch
from offramp.envs import (
    Float32Array,
    MaskArray,
    View,
    action_space,
    actions_of,
    bundled_exits,
    observation_space,
)
from offramp.equations import BoolArray, FloatArray, IntArray
from offramp.errors import MissingExtraError, OfframpError
from offramp.instance import check_predictions, system_of
from offramp.policies.ddqn_kernels import COMPILED, compiled
from offramp.policies.outlook import columns_by_kind, device_kinds
from offramp.policies.stream_kernels import STATE, World, allow, observe, step_world
from offramp.profile import ExitCoefficients
from offramp.scenario import Scenario


@compiled
def _show(
    world: World,
    scale: FloatArray,
    now: FloatArray,
    device: int,
    size: int,
    state: FloatArray,
    fits: BoolArray,
    observation: Float32Array,
    mask: MaskArray,
) -> None:
    """Write what a stream that stands at `now` shows of a task: see `TaskStreamEnv`."""
    observe(state, world.size[size], world.budget_s[size], now[device], now[-1], scale)
    allow(fits, world, world.kinds[device], size, now[device], now[-1])
    for action in range(len(mask)):
        mask[action] = fits[action]
    for i in range(STATE):
        observation[i] = min(max(state[i], -1.0), 1.0)
    if len(observation) == STATE:
        return
    observation[STATE] = min(now[device] / scale[1], 1.0)
    place = STATE + 1
    for other in range(len(now) - 1):
        if other == device:
            continue
        lag = np.float32(min(now[other] / scale[1], 1.0))
        # Insertion keeps them longest first; there are few devices.
        slot = place
        while slot > STATE + 1 and observation[slot - 1] < lag:
            observation[slot] = observation[slot - 1]
            slot -= 1
        observation[slot] = lag
        place += 1


@compiled
def _pass_time(now: FloatArray, gap_s: float) -> None:
    for i in range(len(now)):
        now[i] = max(now[i] - gap_s, 0.0)


@compiled
def _step_all(
    world: World,
    scale: FloatArray,
    now: FloatArray,
    place: IntArray,
    gap_s: FloatArray,
    size: IntArray,
    device: IntArray,
    actions: IntArray,
    resting: BoolArray,
    observations: Float32Array,
    masks: MaskArray,
    rewards: FloatArray,
) -> None:
    """One step of every stream; one that is `resting` has just begun and only shows its first task."""
    state, fits = np.empty(STATE), np.empty(masks.shape[1], np.bool_)
    for i in range(len(place)):
        task = place[i]
        rewards[i] = 0.0
        if not resting[i]:
            rewards[i] = step_world(world, now[i], actions[i], device[i, task], size[i, task])
            task += 1
            place[i] = task
            _pass_time(now[i], gap_s[i, task])
        _show(world, scale, now[i], device[i, task], size[i, task], state, fits, observations[i], masks[i])


class TaskStreamVectorEnv(VectorEnv[Float32Array, IntArray, Any]):
    """`num_envs` independent `TaskStreamEnv`s; stream i of seed s is the single environment's of seed s + i.

    Autoreset is Gymnasium's next-step mode: the step after an episode's last ignores its action, begins a new episode
    and earns 0. Observations, rewards and masks are fresh arrays.
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": []}  # noqa: RUF012 - see TaskStreamEnv

    def __init__(
        self,
        num_envs: int = 1,
        scenario: Scenario | None = None,
        exits: tuple[ExitCoefficients, ...] | None = None,
        view: View = "full",
    ) -> None:
        if num_envs < 1:
            raise OfframpError("num_envs", num_envs, "must be at least 1", "give the number of streams")
        if not COMPILED:
            raise MissingExtraError("numba", "research")
        self.num_envs = num_envs
        self.scenario = scenario = scenario or Scenario()
        exits = exits or bundled_exits()
        sizes = scenario.sizes.values
        check_predictions(exits, set(sizes), "scenario")
        system = system_of(scenario, exits)
        self.single_observation_space = observation_space(scenario, view)
        self.single_action_space = action_space(system)
        self._actions = len(actions_of(system))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        budget_s = np.array([scenario.budget_s(size) for size in sizes])
        self._world = World(
            *columns_by_kind(system, sizes),
            budget_s,
            np.array(sizes, dtype=np.float64),
            device_kinds(system)[0],
        )
        self._scale = np.array([float(max(sizes)), float(budget_s.max())])
        self._rngs: list[np.random.Generator] = []
        shape = (num_envs, scenario.tasks + 1)
        self._gap_s, self._size = np.zeros(shape), np.zeros(shape, np.int64)
        self._device = np.zeros(shape, np.int64)
        self._now = np.zeros((num_envs, scenario.devices + 1))
        self._place = np.zeros(num_envs, np.int64)
        self._ended = np.zeros(num_envs, np.bool_)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32Array, dict[str, Any]]:
        """New streams on idle systems. An int seeds stream i with seed + i; a list gives each its own."""
        seeds: Sequence[int | None]
        if seed is None:
            seeds = [None] * self.num_envs
        else:
            seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else seed
        if len(seeds) != self.num_envs:
            raise OfframpError("seed", seeds, f"must be {self.num_envs} seeds", "give one for each stream")
        if not self._rngs:
            self._rngs = [np.random.default_rng() for _ in range(self.num_envs)]
        for i, each in enumerate(seeds):
            if each is not None:
                # As gymnasium.utils.seeding.np_random does it, so that single and vector streams agree.
                self._rngs[i] = np.random.Generator(np.random.PCG64(np.random.SeedSequence(each)))
        self._begin(np.ones(self.num_envs, np.bool_))
        observations, masks, _ = self._advance(np.zeros(self.num_envs, np.int64), self._ended | True)
        return observations, self._info(masks)

    def step(
        self, actions: IntArray
    ) -> tuple[Float32Array, FloatArray, BoolArray, BoolArray, dict[str, Any]]:
        """One step of every stream. OfframpError if an action is out of range."""
        chosen = np.asarray(actions, dtype=np.int64)
        count = self._actions
        if chosen.shape != (self.num_envs,) or (chosen < 0).any() or (chosen >= count).any():
            raise OfframpError(
                "actions", actions, f"must be {self.num_envs} in 0..{count - 1}", "see `action_space`"
            )
        resting = self._ended
        if resting.any():
            self._begin(resting)
        observations, masks, rewards = self._advance(chosen, resting)
        self._ended = self._place == self.scenario.tasks
        return observations, rewards, np.zeros_like(self._ended), self._ended.copy(), self._info(masks)

    def _begin(self, which: BoolArray) -> None:
        for i in np.flatnonzero(which):
            draws = draw_stretch(self.scenario, self.scenario.tasks + 1, self._rngs[i])
            self._gap_s[i], self._size[i], self._device[i] = draws
        self._now[which] = 0.0
        self._place[which] = 0

    def _advance(self, actions: IntArray, resting: BoolArray) -> tuple[Float32Array, MaskArray, FloatArray]:
        observations = np.zeros(self.observation_space.shape or (), np.float32)
        masks = np.empty((self.num_envs, self._actions), np.int8)
        rewards = np.empty(self.num_envs)
        _step_all(
            self._world,
            self._scale,
            self._now,
            self._place,
            self._gap_s,
            self._size,
            self._device,
            actions,
            resting,
            observations,
            masks,
            rewards,
        )
        return observations, masks, rewards

    def _info(self, masks: MaskArray) -> dict[str, Any]:
        return {"action_mask": masks, "_action_mask": np.ones(self.num_envs, np.bool_)}
