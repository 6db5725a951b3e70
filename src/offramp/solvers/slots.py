"""The recursion of Algorithm 1 on whole slots, compiled: O(τ · u) for a task where the listing takes O(τ²)."""

from __future__ import annotations

import numpy as np

from offramp.equations import FloatArray, IntArray
from offramp.solvers.compiled import compiled


@compiled
def serve_in_turn(
    arrival: IntArray, deadline: IntArray, group: IntArray, needs: IntArray, gain: FloatArray
) -> tuple[IntArray, float]:
    """Exit of every task (0: dropped) and the gain that Algorithm 1 finds, Section III-A.

    Args:
        arrival, deadline: (M,) slots; arrivals ascend.
        group: (M,) row of `needs` for each task.
        needs: (groups, u) slots, >= 1, that each exit takes for such a task.
        gain: (u,) what each exit earns.

    G(i, j) is a rising step function of j, so of all starts t that leave an exit enough slots the latest is best:
    G(i, j) = max(G(i-1, j), max over exits m of G(i-1, j - needs_m) + gain_m).
    """
    tasks, exits = len(arrival), len(gain)
    begin = np.zeros(tasks + 1, dtype=np.int64)
    width = 1
    end = np.int64(0)
    for task in range(tasks):
        end = max(end, deadline[task])
        width = max(width, end - arrival[task] + 1)
        begin[task + 1] = begin[task] + max(0, deadline[task] - arrival[task] + 1)
    # G(i, .) from the present arrival to the latest deadline yet, as a ring; beyond it stays as it is at the end.
    best = np.zeros(width)
    chosen = np.zeros(begin[tasks], dtype=np.int16)
    # Up to here a task's own last value holds, where a deadline before it lay later.
    reach = np.zeros(tasks, dtype=np.int64)
    ends = np.zeros(tasks, dtype=np.int64)
    end = arrival[0] if tasks > 0 else np.int64(0)
    for task in range(tasks):
        now, last = arrival[task], deadline[task]
        # Between the last deadline and this arrival nothing changes.
        level = best[end % width]
        for slot in range(max(end + 1, now), max(last, now) + 1):
            best[slot % width] = level
        end = max(end, last, now)
        ends[task] = end
        for slot in range(last, now, -1):
            value = best[slot % width]
            for exit in range(exits):
                start = slot - needs[group[task], exit]
                if start >= now and best[start % width] + gain[exit] > value:
                    value = best[start % width] + gain[exit]
                    chosen[begin[task] + slot - now] = exit + 1
            best[slot % width] = value
        reach[task] = last
        if last >= now:
            level = best[last % width]
            slot = last + 1
            while slot <= end and best[slot % width] < level:
                best[slot % width] = level
                reach[task] = slot
                slot += 1
    exit_of = np.zeros(tasks, dtype=np.int64)
    slot = int(end)
    for task in range(tasks - 1, -1, -1):
        slot = min(slot, ends[task])
        if slot <= reach[task]:
            own = min(slot, deadline[task])
            if own >= arrival[task]:
                exit_of[task] = chosen[begin[task] + own - arrival[task]]
            if exit_of[task] > 0:
                slot = own - needs[group[task], exit_of[task] - 1]
    return exit_of, float(best[end % width]) if tasks > 0 else 0.0
