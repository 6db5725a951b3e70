"""The arithmetic of Section II: predicted times, gain and feasibility. No other module has a formula of these.

Every function takes scalars or arrays that broadcast, and is written so that numba can compile it as it
stands: compiled solvers and planners call these very functions.
"""

from __future__ import annotations

from typing import NamedTuple, overload

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

TIME_TOLERANCE_S = 1e-9
"""Slack on every deadline test, so that a sum of rounded durations that meets it exactly counts as met."""


class Timeline(NamedTuple):
    """Instants of a task in seconds (Section II-B): t^d, t^s, t^e, t^f; scalars, or one array an option."""

    device_start_s: FloatArray
    send_s: FloatArray
    edge_start_s: FloatArray
    finish_s: FloatArray


def linear(coefficients: FloatArray, size: float) -> FloatArray:
    """Predict slope × size + intercept for coefficients of shape (n, 2); gives (n,). Section II-A's y = kx + b."""
    return coefficients[:, 0] * size + coefficients[:, 1]


def head_durations(layer_s: FloatArray) -> FloatArray:
    """Seconds on the device for every cut 0..l, from layer times of shape (l,): t^end of Section II-B."""
    return np.concatenate((np.zeros(1), np.cumsum(layer_s)))


def tail_durations(layer_s: FloatArray) -> FloatArray:
    """Seconds on the edge for every cut 0..l, from layer times of shape (l,): t^edge of Section II-B."""
    return np.concatenate((np.cumsum(layer_s[::-1])[::-1], np.zeros(1)))


def batch_duration(tail_s: FloatArray, cut: int, decode_s: FloatArray) -> float:
    """Seconds for tasks that the edge runs together from one cut: each is decoded, then all are one larger task.

    `tail_s` is (l + 1,) for their inputs together, see `tail_durations`; `decode_s` (tasks,) is 0 without a codec.
    """
    return float(np.sum(decode_s) + tail_s[cut])


@overload
def upload_duration(output_bytes: float, bandwidth_bytes_per_s: float) -> float: ...
@overload
def upload_duration(output_bytes: FloatArray, bandwidth_bytes_per_s: float) -> FloatArray: ...
def upload_duration(output_bytes: float | FloatArray, bandwidth_bytes_per_s: float) -> float | FloatArray:
    """Seconds to carry `output_bytes` over the link: t^tr = f²/w of Section II-B."""
    return output_bytes / bandwidth_bytes_per_s


def gain(
    accuracy: FloatArray, min_accuracy: float, accuracy_weight: float, accuracy_slope: float
) -> FloatArray:
    """Gain of a task that finishes in time at exits of these accuracies, Eq. 1.

    Accuracies lie in (0, 1]. A dropped or late task earns 0, which is not this function's business.
    """
    satisfaction = 1.0 / (1.0 + np.exp(-accuracy_slope * (accuracy - min_accuracy)))
    return np.ceil(accuracy) + accuracy_weight * satisfaction


def paper_timeline(
    arrival_s: float,
    device_free_s: float,
    edge_free_s: float,
    head_s: FloatArray,
    upload_s: FloatArray,
    tail_s: FloatArray,
) -> Timeline:
    """Timing model `paper`, Section II-B to the letter.

    `device_free_s` is t_h^s, when the device began to send its previous task; `edge_free_s` is t_{n-1}^f, when
    the stream's previous task finished. Both may be -inf. A task that stays on its device waits for the edge too.
    """
    device_start_s = np.maximum(arrival_s, device_free_s)
    send_s = device_start_s + head_s
    edge_start_s = np.maximum(send_s + upload_s, edge_free_s)
    return Timeline(device_start_s, send_s, edge_start_s, edge_start_s + tail_s)


def unqueued_finish(
    arrival_s: float, head_s: FloatArray, upload_s: FloatArray, tail_s: FloatArray
) -> FloatArray:
    """When a task would finish if nothing waited anywhere: what policies that know of no queue go by."""
    return arrival_s + head_s + upload_s + tail_s


def least_duration(
    head_s: FloatArray, upload_s: FloatArray, round_trip_s: float, tail_s: FloatArray
) -> FloatArray:
    """Seconds from arrival to answer that split inference cannot beat: its parts on their own, nothing beside them.

    `round_trip_s` is a bare one on the transport, for asking and being answered.
    """
    return head_s + upload_s + round_trip_s + tail_s


def decided(now_s: float, arrival_s: float, decision_s: float) -> float:
    """When a device has the decision that is taken at `now_s`, under `network`; the round trip began on arrival."""
    return max(now_s, arrival_s + decision_s)


def network_arrival(
    ready_s: float,
    device_free_s: float,
    link_free_s: float,
    link_delay_s: float,
    head_s: FloatArray,
    upload_s: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Timing model `network` up to the edge: (device_start, send, link release, arrival at the edge), instants.

    `ready_s` is when the device has the decision. The device computes one head at a time and its link carries one
    upload at a time; `link_delay_s` is the one-way delay that a packet adds without occupying the link.
    """
    device_start_s = np.maximum(ready_s, device_free_s)
    send_s = device_start_s + head_s
    sent_s = np.maximum(send_s, link_free_s) + upload_s
    return device_start_s, send_s, sent_s, sent_s + link_delay_s


def offloaded_finish(
    edge_start_s: float | FloatArray, tail_s: float | FloatArray, answer_s: float
) -> float | FloatArray:
    """When the device has the answer of a task that the edge has a part in, under `network`."""
    return edge_start_s + tail_s + answer_s


def network_finish(
    send_s: float | FloatArray,
    edge_start_s: float | FloatArray,
    tail_s: float | FloatArray,
    answer_s: float,
    local: BoolArray,
) -> FloatArray:
    """When the device has the answer under `network`: a local task ends with its head, others travel back."""
    return np.where(local, send_s, offloaded_finish(edge_start_s, tail_s, answer_s))


@overload
def on_time(finish_s: float, deadline_s: float) -> bool: ...


@overload
def on_time(finish_s: FloatArray, deadline_s: float) -> BoolArray: ...


def on_time(finish_s: float | FloatArray, deadline_s: float) -> bool | BoolArray:
    """Constraint C2 of Eq. 2: finished at or before the deadline (within `TIME_TOLERANCE_S`)."""
    return finish_s <= deadline_s + TIME_TOLERANCE_S
