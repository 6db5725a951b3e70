"""Algorithm 2 as a loop over numbers that numba compiles: streams, replay memory, double or plain target, Adam.

The network is the paper's: the state's three numbers, two hidden layers of tanh units, one output an action. Action 0
drops the task, action 1 + row takes that row of the option table.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from offramp.equations import BoolArray, FloatArray, IntArray
from offramp.policies.ddqn_kernels import compiled, compiled_loose
from offramp.policies.stream_kernels import World, allow, observe, step_world


class Network(NamedTuple):
    """Weights: first (3, h), second (h, h), out (actions, h), each with its bias."""

    first: FloatArray
    first_bias: FloatArray
    second: FloatArray
    second_bias: FloatArray
    out: FloatArray
    out_bias: FloatArray


class Memory(NamedTuple):
    """Replay memory, a ring of (state, action, reward, next state, actions allowed there), and the stream's lags.

    `cursor`, (1,), counts transitions written so far. `now`, (N + 1,), is the stream as it stands: the lag of each
    device, then of the edge, seconds.
    """

    state: FloatArray
    later: FloatArray
    allowed: BoolArray
    action: IntArray
    reward: FloatArray
    cursor: IntArray
    now: FloatArray


class Chance(NamedTuple):
    """Chance, drawn beforehand: what arrives (n,), exploration (n, 2) in [0, 1), minibatches (n, batch) in [0, 1)."""

    gap_s: FloatArray
    size: IntArray
    device: IntArray
    explore: FloatArray
    batch: FloatArray


@compiled_loose
def _tanh(x: float) -> float:
    """tanh from one exponential: numba's own is several times slower, and this loop spends its time there."""
    bounded = min(max(x, -20.0), 20.0)
    value: float = 1.0 - 2.0 / (np.exp(2.0 * bounded) + 1.0)
    return value


@compiled_loose
def hidden_layers(network: Network, state: FloatArray, low: FloatArray, high: FloatArray) -> None:
    """Outputs of the two hidden layers, written into `low` and `high`, (h,) each."""
    for j in range(len(low)):
        low[j] = network.first_bias[j]
    for i in range(len(state)):
        for j in range(len(low)):
            low[j] += state[i] * network.first[i, j]
    for j in range(len(low)):
        low[j] = _tanh(low[j])
    for j in range(len(high)):
        high[j] = network.second_bias[j]
    for i in range(len(low)):
        for j in range(len(high)):
            high[j] += low[i] * network.second[i, j]
    for j in range(len(high)):
        high[j] = _tanh(high[j])


@compiled_loose
def action_value(network: Network, high: FloatArray, action: int) -> float:
    """Q of one action, from the upper hidden layer."""
    total = float(network.out_bias[action])
    for i in range(len(high)):
        total += network.out[action, i] * high[i]
    return total


@compiled_loose
def best_action(network: Network, high: FloatArray, allowed: BoolArray) -> int:
    """The allowed action of the greatest Q, from the upper hidden layer."""
    best, best_value = 0, -np.inf
    for action in range(len(allowed)):
        if allowed[action]:
            value = action_value(network, high, action)
            if value > best_value:
                best, best_value = action, value
    return best


@compiled_loose
def _bootstrap(
    online: Network,
    target: Network,
    double: bool,
    state: FloatArray,
    allowed: BoolArray,
    low: FloatArray,
    high: FloatArray,
) -> float:
    """Value of the next state: line 12 as printed (`plain`), or with the online network's choice (`double`)."""
    action = -1
    if double:
        hidden_layers(online, state, low, high)
        action = best_action(online, high, allowed)
    hidden_layers(target, state, low, high)
    if not double:
        action = best_action(target, high, allowed)
    return action_value(target, high, action)


@compiled_loose
def _accumulate(
    network: Network,
    gradient: Network,
    state: FloatArray,
    action: int,
    wanted: float,
    low: FloatArray,
    high: FloatArray,
) -> None:
    """Add one sample's gradient of half the squared error (line 13)."""
    hidden_layers(network, state, low, high)
    error = action_value(network, high, action) - wanted
    gradient.out_bias[action] += error
    for j in range(len(high)):
        gradient.out[action, j] += error * high[j]
        high[j] = error * network.out[action, j] * (1.0 - high[j] * high[j])
        gradient.second_bias[j] += high[j]
    for i in range(len(low)):
        below = 0.0
        for j in range(len(high)):
            gradient.second[i, j] += low[i] * high[j]
            below += network.second[i, j] * high[j]
        low[i] = below * (1.0 - low[i] * low[i])
    for j in range(len(low)):
        gradient.first_bias[j] += low[j]
        for i in range(len(state)):
            gradient.first[i, j] += state[i] * low[j]


@compiled_loose
def _adam(
    weights: FloatArray, gradient: FloatArray, mean: FloatArray, square: FloatArray, rate: float, steps: int
) -> None:
    """One step of Adam on flat arrays, with its usual constants; clears the gradient."""
    mean_left = 1.0 - 0.9**steps
    square_left = 1.0 - 0.999**steps
    for i in range(len(weights)):
        mean[i] += 0.1 * (gradient[i] - mean[i])
        square[i] += 0.001 * (gradient[i] * gradient[i] - square[i])
        weights[i] -= rate * (mean[i] / mean_left) / (np.sqrt(square[i] / square_left) + 1e-8)
        gradient[i] = 0.0


@compiled
def _arrive(world: World, scale: FloatArray, memory: Memory, draws: Chance, task: int, place: int) -> None:
    """Let time pass until a task arrives, and write what it meets as the next state of a transition."""
    now, device, size = memory.now, draws.device[task], draws.size[task]
    for i in range(len(now)):
        now[i] = max(now[i] - draws.gap_s[task], 0.0)
    observe(memory.later[place], world.size[size], world.budget_s[size], now[device], now[-1], scale)
    allow(memory.allowed[place], world, world.kinds[device], size, now[device], now[-1])


@compiled
def learn(
    world: World,
    scale: FloatArray,
    memory: Memory,
    draws: Chance,
    online: Network,
    target: Network,
    gradient: Network,
    flat: FloatArray,
    done: int,
    stride: int,
    reset: int,
    double: bool,
    discount: float,
    rates: FloatArray,
    epsilons: FloatArray,
) -> float:
    """Lines 6 to 15 for n tasks, n = len(draws.gap_s); gives the gain earned on the way.

    `online`, `target` and `gradient` are views of rows 0, 1 and 2 of `flat`; rows 3 and 4 are Adam's moments. `done`
    counts the tasks of earlier calls. One gradient step every `stride` tasks, with step size `rates[i]` and
    exploration `epsilons[i]`; the target is reset every `reset` gradient steps.
    """
    capacity, batch = len(memory.reward), draws.batch.shape[1]
    low, high = np.empty(len(online.first_bias)), np.empty(len(online.second_bias))
    total = 0.0
    for task in range(len(draws.gap_s) - 1):
        if task == 0:
            _arrive(world, scale, memory, draws, 0, (memory.cursor[0] - 1) % capacity)
        place, before = memory.cursor[0] % capacity, (memory.cursor[0] - 1) % capacity
        memory.state[place] = memory.later[before]
        allowed = memory.allowed[before]
        if draws.explore[task, 0] < epsilons[task]:
            action = int(np.flatnonzero(allowed)[int(draws.explore[task, 1] * allowed.sum())])
        else:
            hidden_layers(online, memory.state[place], low, high)
            action = best_action(online, high, allowed)
        memory.action[place] = action
        memory.reward[place] = step_world(world, memory.now, action, draws.device[task], draws.size[task])
        total += memory.reward[place]
        _arrive(world, scale, memory, draws, task + 1, place)
        memory.cursor[0] += 1
        filled = min(memory.cursor[0], capacity)
        if filled < batch or (done + task) % stride:
            continue
        for sample in range(batch):
            j = int(draws.batch[task, sample] * filled)
            wanted = memory.reward[j] + discount * _bootstrap(
                online, target, double, memory.later[j], memory.allowed[j], low, high
            )
            _accumulate(online, gradient, memory.state[j], memory.action[j], wanted, low, high)
        flat[2] /= batch
        updates = (done + task) // stride + 1
        _adam(flat[0], flat[2], flat[3], flat[4], rates[task], updates)
        if updates % reset == 0:
            flat[1] = flat[0]
    return total
