"""A system, a demand and a stream as it stands, as the arrays that compiled loops work on."""

from __future__ import annotations

from typing import NamedTuple

from offramp.equations import BoolArray, FloatArray, IntArray


class World(NamedTuple):
    """A system and a demand.

    Attributes:
        head_s, upload_s, tail_s, gain: (kinds, sizes, rows) of the option tables of the devices' kinds.
        exit, cut, local: (rows,) of the same tables.
        kinds: (N,) each device's kind.
        size, budget_s: (sizes,) inputs and relative deadline, seconds.
        network: whether the timing model is `network`; the terms after it are its own, see `NetworkTerms`.
        decode_s: (sizes, rows) what decoding adds to the edge's work.
        tails_s: (exits, inputs + 1, layers + 1) what the layers behind each cut take for so many inputs, for tasks that
            are run together; no inputs where none are.
    """

    head_s: FloatArray
    upload_s: FloatArray
    tail_s: FloatArray
    gain: FloatArray
    exit: IntArray
    cut: IntArray
    local: BoolArray
    kinds: IntArray
    size: FloatArray
    budget_s: FloatArray
    network: bool
    decision_s: float
    link_delay_s: float
    answer_s: float
    max_batch: int
    decode_s: FloatArray
    tails_s: FloatArray


class Standing(NamedTuple):
    """A stream as it stands: what is busy until when, and the jobs that the edge has yet to start, by arrival there.

    Attributes:
        device_free_s, link_free_s: (N,) instants.
        worker_free_s: (W,) instants, ascending; under `paper` there is one.
        job_s: (capacity, 3) a job's arrival at the edge, deadline and work there; seconds.
        job: (capacity, 2) its size and row.
        span: (2,) the jobs are those from span[0] to before span[1].
        forecast_arrival_s, forecast_free_s: (capacity,), (capacity + 1,): see `Backlog`; written anew for each task.
        busy_s: (1,) seconds that the workers have computed, or are to compute for what has begun.
    """

    device_free_s: FloatArray
    link_free_s: FloatArray
    worker_free_s: FloatArray
    job_s: FloatArray
    job: IntArray
    span: IntArray
    forecast_arrival_s: FloatArray
    forecast_free_s: FloatArray
    busy_s: FloatArray
