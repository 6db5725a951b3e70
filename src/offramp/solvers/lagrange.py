"""Compiled parts of the bound for the `network` timing model: one device with its link, and edge time at a price."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from offramp import equations
from offramp.equations import BoolArray, FloatArray, IntArray
from offramp.solvers.compiled import compiled, on_time

network_arrival = compiled(equations.network_arrival)
offloaded_finish = compiled(equations.offloaded_finish)


class Lane(NamedTuple):
    """The tasks of one device in order of arrival (K of them) and their options (O), instants and durations in s.

    Attributes:
        ready_s, deadline_s: (K,) instants.
        first, last: (K,) the task's options are rows first..last-1.
        head_s, upload_s, tail_s, gain, local: (O,) of the options.
        work_s: (O,) edge time that each needs at least; less than `tail_s` where the edge runs tasks together.
        opens, closes: (O,) first and last window in which the edge can work on it; 0 and -1 if it needs none.
    """

    ready_s: FloatArray
    deadline_s: FloatArray
    first: IntArray
    last: IntArray
    head_s: FloatArray
    upload_s: FloatArray
    tail_s: FloatArray
    work_s: FloatArray
    gain: FloatArray
    local: BoolArray
    opens: IntArray
    closes: IntArray


@compiled
def price_options(lane: Lane, price: FloatArray, net: FloatArray, cheapest: IntArray) -> None:
    """Write to `net` each option's gain less its edge time at the cheapest window it can use, and that window.

    `price` is gain per second of edge time in each window. An option that needs no edge time has window -1.
    """
    for option in range(len(lane.gain)):
        net[option] = lane.gain[option]
        cheapest[option] = -1
        if lane.opens[option] <= lane.closes[option]:
            best = lane.opens[option]
            for window in range(lane.opens[option], lane.closes[option] + 1):
                if price[window] < price[best]:
                    best = window
            cheapest[option] = best
            net[option] -= lane.work_s[option] * price[best]


@compiled
def best_lane(
    lane: Lane, net: FloatArray, link_delay_s: float, answer_s: float, room: int, chosen: IntArray
) -> float:
    """Greatest sum of `net` that one device can earn with an edge that never makes it wait; choices go to `chosen`.

    Labels are (when the device is free, when its link is, sum). Beyond `room` of them the worst are joined, least
    instants and greatest sum, so that the result bounds the sum from above; the choices are then one of its ways.
    """
    count = len(lane.ready_s)
    widest = 1
    for task in range(count):
        widest = max(widest, lane.last[task] - lane.first[task] + 1)
    device_s, link_s, total = np.full(room, -np.inf), np.full(room, -np.inf), np.zeros(room)
    found_device_s, found_link_s = np.empty(room * widest), np.empty(room * widest)
    found_total = np.empty(room * widest)
    found_parent = np.empty(room * widest, dtype=np.int32)
    found_option = np.empty(room * widest, dtype=np.int32)
    parent = np.empty((count, room), dtype=np.int32)
    option_of = np.empty((count, room), dtype=np.int32)
    labels = 1
    for task in range(count):
        following_s = lane.ready_s[task + 1] if task + 1 < count else np.inf
        filled = 0
        for label in range(labels):
            for option in range(lane.first[task] - 1, lane.last[task]):
                free_s, sent_s, gained = device_s[label], link_s[label], total[label]
                if option >= lane.first[task]:
                    if net[option] <= 0:
                        continue
                    _, send_s, uploaded_s, arrival_s = network_arrival(
                        lane.ready_s[task],
                        device_s[label],
                        link_s[label],
                        link_delay_s,
                        lane.head_s[option],
                        lane.upload_s[option],
                    )
                    finish_s = float(send_s)
                    if not lane.local[option]:
                        finish_s = float(offloaded_finish(arrival_s, lane.tail_s[option], answer_s))
                    if not on_time(finish_s, lane.deadline_s[task]):
                        continue
                    free_s = send_s
                    if not lane.local[option]:
                        sent_s = uploaded_s
                    gained += net[option]
                found_device_s[filled] = max(free_s, following_s)
                found_link_s[filled] = max(sent_s, following_s)
                found_total[filled] = gained
                found_parent[filled] = label
                found_option[filled] = option if option >= lane.first[task] else -1
                filled += 1
        order = np.argsort(found_total[:filled])
        labels = 0
        for place in range(filled - 1, -1, -1):
            candidate = order[place]
            beaten = False
            for label in range(labels):
                if device_s[label] <= found_device_s[candidate] and link_s[label] <= found_link_s[candidate]:
                    beaten = True
                    break
            if beaten:
                continue
            if labels == room:
                device_s[room - 1] = min(device_s[room - 1], found_device_s[candidate])
                link_s[room - 1] = min(link_s[room - 1], found_link_s[candidate])
                continue
            device_s[labels], link_s[labels] = found_device_s[candidate], found_link_s[candidate]
            total[labels] = found_total[candidate]
            parent[task, labels], option_of[task, labels] = found_parent[candidate], found_option[candidate]
            labels += 1
    best = 0
    for label in range(labels):
        if total[label] > total[best]:
            best = label
    greatest = total[best]
    for task in range(count - 1, -1, -1):
        chosen[task] = option_of[task, best]
        best = parent[task, best]
    return float(greatest)


@compiled
def use_windows(
    lane: Lane, chosen: IntArray, price: FloatArray, cheapest: IntArray, used_s: FloatArray
) -> None:
    """Add the chosen options' edge seconds to the windows that are as cheap as their cheapest, evenly."""
    for task in range(len(chosen)):
        option = chosen[task]
        if option < 0 or cheapest[option] < 0:
            continue
        least = price[cheapest[option]]
        equal = 0
        for window in range(lane.opens[option], lane.closes[option] + 1):
            if price[window] <= least:
                equal += 1
        for window in range(lane.opens[option], lane.closes[option] + 1):
            if price[window] <= least:
                used_s[window] += lane.work_s[option] / equal
