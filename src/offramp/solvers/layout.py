"""A solver's decisions laid out in time under `paper`, as `state.paper_schedule` does it task by task, but at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from offramp.equations import BoolArray, FloatArray, IntArray
from offramp.options import OptionTable
from offramp.schedule import DROPPED, ScheduledTask
from offramp.solvers.compiled import compiled, on_time, paper_timeline
from offramp.task import Task


def lay_out(
    tasks: Sequence[Task], tables: Sequence[OptionTable], table_of: IntArray, rows: IntArray, devices: int
) -> tuple[ScheduledTask, ...]:
    """What comes of every task: `rows` (M,) are rows of `tables[table_of]`, -1 where a task is dropped."""
    laid: list[ScheduledTask] = [DROPPED] * len(tasks)
    served = np.flatnonzero(rows >= 0)
    if not len(served):
        return tuple(laid)
    begins = np.cumsum([0, *(len(table) for table in tables[:-1])])
    option = begins[table_of[served]] + rows[served]

    def column(name: str) -> FloatArray:
        values: FloatArray = np.concatenate([getattr(table, name) for table in tables])[option]
        return values

    instants_s, met = _walk(
        np.array([task.arrival_s for task in tasks])[served],
        np.array([task.deadline_s for task in tasks])[served],
        np.array([task.device for task in tasks], dtype=np.int64)[served],
        devices,
        column("head_s"),
        column("upload_s"),
        column("tail_s"),
    )
    gain = np.where(met, column("gain"), 0.0)
    codec = np.concatenate([table.codec for table in tables])[option]
    columns = (column("exit"), column("cut"), *instants_s, met, gain, codec)
    for n, *values in zip(served.tolist(), *(values.tolist() for values in columns), strict=True):
        laid[n] = ScheduledTask(*values)
    return tuple(laid)


@compiled
def _walk(
    arrival_s: FloatArray,
    deadline_s: FloatArray,
    device: IntArray,
    devices: int,
    head_s: FloatArray,
    upload_s: FloatArray,
    tail_s: FloatArray,
) -> tuple[FloatArray, BoolArray]:
    """(4, M) instants of the served tasks and (M,) whether each is in time."""
    instants_s = np.empty((4, len(arrival_s)))
    met = np.empty(len(arrival_s), dtype=np.bool_)
    device_free_s = np.full(devices, -np.inf)
    edge_free_s = -np.inf
    for task in range(len(arrival_s)):
        line = paper_timeline(
            arrival_s[task],
            device_free_s[device[task]],
            edge_free_s,
            head_s[task],
            upload_s[task],
            tail_s[task],
        )
        instants_s[0, task], instants_s[1, task] = line.device_start_s, line.send_s
        instants_s[2, task], instants_s[3, task] = line.edge_start_s, line.finish_s
        device_free_s[device[task]], edge_free_s = line.send_s, float(line.finish_s)
        met[task] = on_time(line.finish_s, deadline_s[task])
    return instants_s, met
