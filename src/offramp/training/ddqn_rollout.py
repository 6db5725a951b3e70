"""Simulated experience for the `ddqn` agent under `paper` timing, as a loop that numba compiles."""

from __future__ import annotations

import numpy as np

from offramp.equations import FloatArray, IntArray
from offramp.policies.ddqn_kernels import (
    Layers,
    Tables,
    afterstate_features,
    compiled,
    network_values,
    paper_timeline,
    surviving,
)


@compiled
def afterstates(
    head_s: FloatArray,
    upload_s: FloatArray,
    tail_s: FloatArray,
    gain: FloatArray,
    budget_s: float,
    device_lag_s: float,
    edge_lag_s: float,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(device lag, edge lag, gain) after each choice worth taking; the last one is to drop the task."""
    options = len(gain)
    send_s, finish_s = np.empty(options), np.empty(options)
    for row in range(options):
        line = paper_timeline(0.0, device_lag_s, edge_lag_s, head_s[row], upload_s[row], tail_s[row])
        send_s[row], finish_s[row] = line[1], line[3]
    rows = surviving(send_s, finish_s, finish_s, gain, budget_s)
    count = len(rows)
    own_s, edge_s, earned = np.empty(count + 1), np.empty(count + 1), np.zeros(count + 1)
    for place in range(count):
        own_s[place], edge_s[place] = send_s[rows[place]], finish_s[rows[place]]
        earned[place] = gain[rows[place]]
    own_s[count], edge_s[count] = device_lag_s, edge_lag_s
    return own_s, edge_s, earned


@compiled
def rollout(
    columns: tuple[FloatArray, FloatArray, FloatArray, FloatArray],
    budget_s: FloatArray,
    view: Tables,
    online: Layers,
    target: Layers,
    discount: float,
    epsilon: float,
    lags_s: FloatArray,
    edge_lag_s: float,
    gaps_s: FloatArray,
    sizes: IntArray,
    devices: IntArray,
    chances: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray, float]:
    """Play tasks; gives (features of the afterstates met, their double-DQN targets, gains earned, edge lag).

    columns: head_s, upload_s, tail_s, gain, each (kinds, sizes, options). gaps_s, sizes, devices: (tasks, samples):
    draws of what follows each decision; the first of a row is what does follow. chances: (tasks, 2) uniform draws.
    `lags_s` is left as the last decision leaves it. A target is the mean over the samples of the next task's gain
    and its afterstate's value, the choice by `online` and the value by `target`.
    """
    head_s, upload_s, tail_s, gain = columns
    tasks, samples = gaps_s.shape
    top = view.scale[2]
    targets, gains = np.zeros(tasks), np.zeros(tasks)
    own_after, edge_after, earned = np.zeros(1), np.full(1, edge_lag_s), np.zeros(1)
    own_after[0] = lags_s[0]
    device, choice = 0, 0
    features = afterstate_features(view, lags_s, device, own_after, edge_after)
    seen = np.empty((tasks, features.shape[1]))
    for task in range(tasks):
        # The decision made for the previous task takes effect.
        lags_s[device], edge_lag_s = own_after[choice], edge_after[choice]
        gains[task] = earned[choice]
        seen[task] = features[choice]
        for sample in range(samples - 1, -1, -1):
            size, device = sizes[task, sample], devices[task, sample]
            later_s = lags_s - gaps_s[task, sample]
            kind = view.kinds[device]
            own_after, edge_after, earned = afterstates(
                head_s[kind, size],
                upload_s[kind, size],
                tail_s[kind, size],
                gain[kind, size],
                budget_s[size],
                max(later_s[device], 0.0),
                max(edge_lag_s - gaps_s[task, sample], 0.0),
            )
            features = afterstate_features(view, later_s, device, own_after, edge_after)
            choice = int(np.argmax(earned / top + discount * network_values(online, features)))
            value = network_values(target, features[choice : choice + 1])[0]
            targets[task] += (earned[choice] / top + discount * value) / samples
        if chances[task, 0] < epsilon:
            choice = int(chances[task, 1] * len(earned))
        lags_s[:] = later_s
    lags_s[device], edge_lag_s = own_after[choice], edge_after[choice]
    return seen, targets, gains, edge_lag_s
