"""What a device is given to do: when tasks arrive, how large they are, and which inputs they hold."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from offramp.errors import OfframpError
from offramp.instance import draw_tasks
from offramp.model.inputs import random_inputs
from offramp.model.tensors import Array, TensorSpec
from offramp.runtime.protocol import MAX_KINDS
from offramp.scenario import Scenario
from offramp.task import Task

LOOKED_AT = 1000
"""Tasks of a stream that show what kinds there are."""
GENERATED = 256
"""Inputs that are made up where there is no data."""
_INPUT = "input/"


@dataclass(frozen=True, slots=True)
class Samples:
    """Inputs of the model by name, first axis n, and the class of each where it is known.

    `source` says where they come from, for a person to read.
    """

    inputs: Mapping[str, Array]
    labels: npt.NDArray[np.int64] | None
    source: str

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def take(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> Samples:
        """The inputs of these rows."""
        labels = None if self.labels is None else self.labels[rows]
        return Samples({name: array[rows] for name, array in self.inputs.items()}, labels, self.source)


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """A task to come: its arrival counts from the start of the stream; `rows` of the samples are its inputs."""

    arrival_s: float
    budget_s: float
    rows: npt.NDArray[np.int64]

    @property
    def size(self) -> int:
        """Inputs in the task."""
        return len(self.rows)


def kinds_of(tasks: Iterable[Task | PlannedTask]) -> tuple[tuple[int, float], ...]:
    """Size and budget of tasks, the most frequent kinds first: what a device tells its edge of what it will have."""
    counted = Counter((task.size, task.budget_s) for task in islice(tasks, LOOKED_AT))
    return tuple(kind for kind, _ in counted.most_common(MAX_KINDS))


def own_stream(scenario: Scenario, samples: int, seed: int) -> Iterator[PlannedTask]:
    """The tasks of a one-device scenario, each of inputs drawn from `samples`. One seed, one stream."""
    tasks_rng, rows_rng = np.random.default_rng(seed).spawn(2)
    for task in islice(draw_tasks(scenario, tasks_rng), scenario.tasks):
        yield PlannedTask(task.arrival_s, task.budget_s, rows_rng.integers(samples, size=task.size))


def generated(specs: Sequence[TensorSpec], rng: np.random.Generator) -> Samples:
    """Made-up inputs for a model that no data set here fits: noise, without labels."""
    return Samples(random_inputs(specs, GENERATED, rng), None, "generated inputs")


def save_share(path: Path, tasks: Sequence[PlannedTask], samples: Samples) -> None:
    """Write a device's share of a recorded stream, with the inputs of its tasks."""
    rows = np.concatenate([task.rows for task in tasks]) if tasks else np.zeros(0, np.int64)
    used = samples.take(rows)
    columns: dict[str, Array] = {
        "arrival_s": np.array([task.arrival_s for task in tasks], dtype=np.float64),
        "budget_s": np.array([task.budget_s for task in tasks], dtype=np.float64),
        "size": np.array([task.size for task in tasks], dtype=np.int64),
        "source": np.array(samples.source),
    }
    if used.labels is not None:
        columns["labels"] = used.labels
    np.savez(path, **columns, **{_INPUT + name: array for name, array in used.inputs.items()})  # type: ignore[arg-type]


def load_share(path: Path) -> tuple[list[PlannedTask], Samples]:
    """Read what `save_share` wrote. Raises OfframpError if the file is not such a share."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            columns = {name: stored[name] for name in stored.files}
        sizes = columns["size"]
        ends = np.cumsum(sizes)
        tasks = [
            PlannedTask(float(arrival_s), float(budget_s), np.arange(end - size, end))
            for arrival_s, budget_s, size, end in zip(
                columns["arrival_s"], columns["budget_s"], sizes, ends, strict=True
            )
        ]
        inputs = {
            name.removeprefix(_INPUT): array for name, array in columns.items() if name.startswith(_INPUT)
        }
        samples = Samples(inputs, columns.get("labels"), str(columns["source"]))
        if any(len(array) != int(sizes.sum()) for array in inputs.values()) or not inputs:
            raise ValueError("inputs and sizes do not agree")
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise OfframpError(
            "tasks-file", str(path), f"is no recorded share ({error})", "let the demo write it"
        ) from None
    return tasks, samples
