"""`offramp/TaskStream-v0`: a stream of tasks as a Gymnasium environment, under `paper` timing.

Importing this module registers it; `gymnasium.make("offramp.envs:offramp/TaskStream-v0")` imports it by itself. With
`gymnasium.make_vec(..., vectorization_mode="vector_entry_point")` it is the compiled vector environment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt

from offramp.bulk import draw_stretch
from offramp.errors import MissingExtraError, OfframpError
from offramp.instance import check_predictions, system_of
from offramp.options import System
from offramp.profile import ExitCoefficients
from offramp.scenario import Scenario
from offramp.state import PaperState
from offramp.task import DROP, Decision, Task

try:
    import gymnasium
    from gymnasium import spaces
except ImportError:
    raise MissingExtraError("gymnasium", "research") from None

if TYPE_CHECKING:
    from offramp.observation import Observation

ENV_ID = "offramp/TaskStream-v0"
View = Literal["paper", "full"]
Float32Array = npt.NDArray[np.float32]
MaskArray = npt.NDArray[np.int8]


class TaskStreamEnv(gymnasium.Env[Float32Array, np.int64]):
    """One step a task: the observation shows it, the action takes an option or drops it, the reward is its gain.

    Actions: 0 drops the task; 1 + row takes that row of its option table (`actions` says which exit and cut that is).
    An option that finishes late earns 0 and still occupies device and edge. `info["action_mask"]` marks what finishes
    in time, and dropping. An episode has the scenario's M tasks and is then truncated: a stream has no end of its own.

    Observations, float32 in [-1, 1]: size over the greatest size; then over the longest budget, and cut off at one
    such budget: what the device's backlog leaves of this task's budget, and the edge's backlog. That is the paper's
    state (`view="paper"`); `full` adds the backlog of the task's device and of all others, longest first.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - Gymnasium's own convention

    def __init__(
        self,
        scenario: Scenario | None = None,
        exits: tuple[ExitCoefficients, ...] | None = None,
        view: View = "full",
    ) -> None:
        self.scenario = scenario or Scenario()
        exits = exits or bundled_exits()
        check_predictions(exits, set(self.scenario.sizes.values), "scenario")
        self.system = system_of(self.scenario, exits)
        self.view = view
        self.observation_space = observation_space(self.scenario, view)
        self.action_space = action_space(self.system)
        self.actions = actions_of(self.system)
        self._tasks: list[Task] = []
        self._next = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32Array, dict[str, Any]]:
        """An idle system and a new stream. `options` is not used."""
        super().reset(seed=seed)
        self._tasks = self._draw()
        self._state = PaperState(self.system)
        self._next = 0
        return self._show()

    def step(self, action: np.int64 | int) -> tuple[Float32Array, float, bool, bool, dict[str, Any]]:
        """Take an action for the task that the last observation showed. OfframpError if there is no such action."""
        if not 0 <= action < len(self.actions):
            raise OfframpError(
                "action", int(action), f"must be in 0..{len(self.actions) - 1}", "see `action_space`"
            )
        if self._next >= self.scenario.tasks:
            raise OfframpError("step", self._next, "the episode is over", "call reset first")
        self._state.commit(self._observation, self.actions[int(action)])
        self._next += 1
        observed, info = self._show()
        return observed, self._state.rows()[-1].gain, False, self._next == self.scenario.tasks, info

    def _draw(self) -> list[Task]:
        scenario = self.scenario
        draws = draw_stretch(scenario, scenario.tasks + 1, self.np_random)
        sizes = [scenario.sizes.values[index] for index in draws.size]
        return [
            Task(float(arrival_s), size, scenario.budget_s(size), int(device))
            for arrival_s, size, device in zip(np.cumsum(draws.gap_s), sizes, draws.device, strict=True)
        ]

    def _show(self) -> tuple[Float32Array, dict[str, Any]]:
        task = self._tasks[self._next]
        self._observation = self._state.observe(task)
        fits = self._observation.feasible(self._observation.timeline().finish_s)
        mask = np.concatenate(([True], fits)).astype(np.int8)
        return self._numbers(self._observation), {"action_mask": mask}

    def _numbers(self, observation: Observation) -> Float32Array:
        task, backlog = observation.task, observation.backlog
        top_size = max(self.scenario.sizes.values)
        top_budget_s = self.scenario.budget_s(top_size)
        lags_s = np.maximum(backlog.device_free_s - task.arrival_s, 0.0)
        edge_lag_s = max(float(backlog.edge_free_s[-1]) - task.arrival_s, 0.0)
        own_s = float(lags_s[task.device])
        numbers = [task.size / top_size, (task.budget_s - own_s) / top_budget_s, edge_lag_s / top_budget_s]
        if self.view == "full":
            others_s = np.sort(np.delete(lags_s, task.device))[::-1]
            numbers += [own_s / top_budget_s, *(others_s / top_budget_s)]
        return np.clip(numbers, -1.0, 1.0).astype(np.float32)


def bundled_exits() -> tuple[ExitCoefficients, ...]:
    """The measured coefficients of the bundled network."""
    from offramp.model.bundle import load_bundle

    return load_bundle(None).coefficients()


def observation_space(scenario: Scenario, view: View) -> spaces.Space[Float32Array]:
    """See `TaskStreamEnv`. OfframpError if there is no such view."""
    if view not in ("paper", "full"):
        raise OfframpError("view", view, "must be paper or full", "choose one of these")
    low = np.zeros(3 if view == "paper" else 3 + scenario.devices, dtype=np.float32)
    low[1] = -1.0
    return cast("spaces.Space[Float32Array]", spaces.Box(low, np.ones_like(low), dtype=np.float32))


def action_space(system: System) -> spaces.Discrete:
    """Dropping, and every option of the network."""
    return spaces.Discrete(len(actions_of(system)))


def actions_of(system: System) -> list[Decision]:
    """What each action decides: dropping, then each row of the option tables, which is the same for every size."""
    options = system.options(0, 1)
    return [DROP, *(options.decision(row) for row in range(len(options)))]


def register() -> None:
    """Make `ENV_ID` known to Gymnasium, single and vector; once is enough."""
    if ENV_ID in gymnasium.registry:
        return
    gymnasium.register(
        ENV_ID,
        entry_point="offramp.envs:TaskStreamEnv",
        vector_entry_point="offramp.compiled_env:TaskStreamVectorEnv",
    )


register()
