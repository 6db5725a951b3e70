"""What sampled futures can still earn after each candidate: the label method with a few labels, compiled.

A label is when the devices of the future's tasks, their links and the edge are free, and the gain on the way there.
Task by task every label drops the task or serves it; the labels that are kept are those with the most gain, less a
price for every second that something is busy. The arithmetic is that of `offramp.equations`, compiled as it stands.
Instants count from the decision.
"""

from __future__ import annotations

import numpy as np

from offramp.equations import FloatArray
from offramp.policies.planning.futures import Futures, Prices
from offramp.policies.planning.problem import Options, Terms
from offramp.policies.planning.shared_kernels import (
    network_arrival,
    offloaded_finish,
    on_time,
    paper_timeline,
)
from offramp.solvers.compiled import compiled


@compiled
def moved(
    paper: bool,
    terms: Terms,
    options: Options,
    option: int,
    ready_s: float,
    device_s: float,
    link_s: float,
    edge_s: float,
) -> tuple[float, float, float, float]:
    """(finish, device free, link free, edge free) after an option of a task that is ready at `ready_s`.

    Under `network` the edge's instant is when it has done all the work sent its way, as if that were there already.
    """
    head_s, upload_s, tail_s = options.head_s[option], options.upload_s[option], options.tail_s[option]
    if paper:
        line = paper_timeline(ready_s, device_s, edge_s, head_s, upload_s, tail_s)
        return line.finish_s, line.send_s, link_s, line.finish_s
    _, send_s, sent_s, arrival_s = network_arrival(
        ready_s, device_s, link_s, terms.link_delay_s, head_s, upload_s
    )
    if options.local[option]:
        return send_s, send_s, link_s, edge_s
    finish_s = offloaded_finish(max(arrival_s, edge_s), tail_s, terms.answer_s)
    return finish_s, send_s, sent_s, max(edge_s, ready_s) + tail_s / terms.edge_workers


@compiled
def future_gain(
    paper: bool,
    terms: Terms,
    options: Options,
    futures: Futures,
    future: int,
    prices: Prices,
    labels: FloatArray,
    spare: FloatArray,
    best: FloatArray,
) -> float:
    """Most gain of one future from the state in `labels[0]`, as far as so many labels find it.

    A label (row) is: devices' instants, links' instants, the edge's, gain; seats as in `Futures`. `labels` and
    `spare` are (L, 2·seats + 2); `best` (L, 7) is scratch.
    """
    room = labels.shape[0]
    seats = (labels.shape[1] - 2) // 2
    edge, gain = 2 * seats, 2 * seats + 1
    count = 1
    for task in range(futures.arrival_s.shape[1]):
        arrival_s, seat = futures.arrival_s[future, task], futures.seat[future, task]
        group, budget_s = futures.group[future, task], futures.budget_s[future, task]
        ready_s = arrival_s if paper else arrival_s + terms.decision_s
        filled = 0
        for label in range(count):
            device_s, link_s = labels[label, seat], labels[label, seats + seat]
            edge_s, earned = labels[label, edge], labels[label, gain]
            for option in range(options.start[group] - 1, options.start[group + 1]):
                after = earned
                finish_s, free_s, link_free_s, edge_free_s = 0.0, device_s, link_s, edge_s
                if option >= options.start[group]:
                    finish_s, free_s, link_free_s, edge_free_s = moved(
                        paper, terms, options, option, ready_s, device_s, link_s, edge_s
                    )
                    if not on_time(finish_s, arrival_s + budget_s):
                        continue
                    after += options.gain[option]
                rank = (
                    after
                    - prices.device * max(free_s - arrival_s, 0.0)
                    - prices.link * max(link_free_s - arrival_s, 0.0)
                    - prices.edge * max(edge_free_s - arrival_s, 0.0)
                )
                place = filled if filled < room else room - 1
                if filled == room and rank <= best[place, 0]:
                    continue
                while place > 0 and best[place - 1, 0] < rank:
                    for column in range(7):
                        best[place, column] = best[place - 1, column]
                    place -= 1
                best[place, 0], best[place, 1], best[place, 2] = rank, label, free_s
                best[place, 3], best[place, 4], best[place, 5] = link_free_s, edge_free_s, after
                filled = min(filled + 1, room)
        for place in range(filled):
            spare[place] = labels[int(best[place, 1])]
            spare[place, seat], spare[place, seats + seat] = best[place, 2], best[place, 3]
            spare[place, edge], spare[place, gain] = best[place, 4], best[place, 5]
        labels, spare = spare, labels
        count = filled
    most = 0.0
    for label in range(count):
        most = max(most, labels[label, gain])
    return most


@compiled
def candidate_values(
    paper: bool,
    terms: Terms,
    options: Options,
    futures: Futures,
    first_future: int,
    count: int,
    prices: Prices,
    room: int,
    owner: int,
    device_free_s: FloatArray,
    link_free_s: FloatArray,
    after_s: FloatArray,
) -> FloatArray:
    """Mean gain of `count` futures after each candidate, the same futures for all.

    `device_free_s`, `link_free_s` (N,) are the backlog; `after_s` (C, 3) says when each candidate would leave the
    owner's device, its link, and the edge free. Gives (C,).
    """
    seats = futures.who.shape[1]
    labels = np.empty((room, 2 * seats + 2))
    spare = np.empty((room, 2 * seats + 2))
    best = np.empty((room, 7))
    total = np.zeros(len(after_s))
    for step in range(count):
        future = (first_future + step) % len(futures.arrival_s)
        for candidate in range(len(after_s)):
            for seat in range(seats):
                device = futures.who[future, seat]
                mine = device == owner
                labels[0, seat] = after_s[candidate, 0] if mine else device_free_s[device]
                labels[0, seats + seat] = after_s[candidate, 1] if mine else link_free_s[device]
            labels[0, 2 * seats] = after_s[candidate, 2]
            labels[0, 2 * seats + 1] = 0.0
            total[candidate] += future_gain(
                paper, terms, options, futures, future, prices, labels, spare, best
            )
    return total / count
