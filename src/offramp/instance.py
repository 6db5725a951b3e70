"""A drawn set of tasks with everything a solver needs: the file format `offramp.instance/1`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from offramp import equations
from offramp.equations import FloatArray
from offramp.errors import OfframpError
from offramp.options import Gain, NetworkTerms, System
from offramp.profile import CodedCut, ExitCoefficients
from offramp.scenario import Scenario
from offramp.tables import LayerTable, Side
from offramp.task import UNCODED, Task
from offramp.validation import dump_json, parse_json, parse_value, read_text

Row = tuple[float, float]


class CodedCutModel(BaseModel):
    """What a codec makes of one cut: rows are [slope, intercept]; `output_bytes` are in place of the exit's own."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    cut: Annotated[int, Field(ge=0)]
    codec: Annotated[str, Field(min_length=1, max_length=64)]
    accuracy: Annotated[float, Field(gt=0, le=1)]
    device_s: Row
    edge_s: Row
    output_bytes: Row


class TableModel(BaseModel):
    """Seconds of one layer, in place of its row: pairs [size, seconds], sizes ascending, seconds not falling."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    side: Side
    layer: PositiveInt
    points: Annotated[tuple[tuple[PositiveInt, NonNegativeFloat], ...], Field(min_length=2)]

    @model_validator(mode="after")
    def _rises(self) -> TableModel:
        for (left, low_s), (right, high_s) in pairwise(self.points):
            if right <= left or high_s < low_s:
                raise ValueError(
                    f"points at sizes {left} and {right}: sizes must ascend, seconds must not fall"
                )
        return self


class ExitModel(BaseModel):
    """One exit of the file: rows are [slope, intercept]."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    accuracy: Annotated[float, Field(gt=0, le=1)]
    device_s: Annotated[tuple[Row, ...], Field(min_length=1)]
    edge_s: Annotated[tuple[Row, ...], Field(min_length=1)]
    output_bytes: Annotated[tuple[Row, ...], Field(min_length=2)]
    codecs: tuple[CodedCutModel, ...] = ()
    tables: tuple[TableModel, ...] = ()

    @model_validator(mode="after")
    def _lengths(self) -> ExitModel:
        layers = len(self.device_s)
        if len(self.edge_s) != layers or len(self.output_bytes) != layers + 1:
            raise ValueError(
                f"device_s, edge_s and output_bytes must have l, l and l + 1 rows; they have {layers}, "
                f"{len(self.edge_s)} and {len(self.output_bytes)}"
            )
        choices = [(coded.cut, coded.codec) for coded in self.codecs]
        for number, (cut, codec) in enumerate(choices):
            if cut >= layers:
                raise ValueError(f"codecs.{number}.cut = {cut}: must be in 0..{layers - 1}")
            if codec == UNCODED or (cut, codec) in choices[:number]:
                raise ValueError(f"codecs.{number}: {codec} at cut {cut} is there already")
        places = [(table.side, table.layer) for table in self.tables]
        for number, (side, layer) in enumerate(places):
            if layer > layers:
                raise ValueError(f"tables.{number}.layer = {layer}: must be in 1..{layers}")
            if (side, layer) in places[:number]:
                raise ValueError(f"tables.{number}: layer {layer} on the {side} has one already")
        return self


class TaskModel(BaseModel):
    """One task of the file."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    arrival_s: NonNegativeFloat
    size: PositiveInt
    budget_s: NonNegativeFloat
    device: Annotated[int, Field(ge=0)]


class InstanceModel(BaseModel):
    """The file as it stands. Keys it does not know are left alone."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    format: Literal["offramp.instance/1"]
    devices: PositiveInt
    bandwidth_bytes_per_s: PositiveFloat | None = None
    device_slowdown: tuple[NonNegativeFloat, ...] | None = None
    device_bandwidth_bytes_per_s: tuple[PositiveFloat, ...] | None = None
    gain: Gain
    network: NetworkTerms | None = None
    exits: Annotated[tuple[ExitModel, ...], Field(min_length=1)]
    tasks: Annotated[tuple[TaskModel, ...], Field(min_length=1)]
    scenario: Any = None

    @model_validator(mode="after")
    def _consistent(self) -> InstanceModel:
        if self.bandwidth_bytes_per_s is None and self.device_bandwidth_bytes_per_s is None:
            raise ValueError("bandwidth_bytes_per_s is missing; give it, or device_bandwidth_bytes_per_s")
        for name in ("device_slowdown", "device_bandwidth_bytes_per_s"):
            each = getattr(self, name)
            if each is not None and len(each) != self.devices:
                raise ValueError(
                    f"{name} has {len(each)} entries; it needs one for each of {self.devices} devices"
                )
        before_s = 0.0
        for number, task in enumerate(self.tasks):
            if task.device >= self.devices:
                raise ValueError(f"tasks.{number}.device = {task.device}: must be in 0..{self.devices - 1}")
            if task.arrival_s < before_s:
                raise ValueError(
                    f"tasks.{number}.arrival_s = {task.arrival_s}: earlier than the task before; sort"
                )
            before_s = task.arrival_s
        return self


@dataclass(frozen=True, eq=False)
class Instance:
    """Tasks in order of arrival and the system they meet.

    Attributes:
        scenario: what the tasks were drawn from, where the file says so. An online policy may know it.
    """

    system: System
    tasks: tuple[Task, ...]
    scenario: Scenario | None = None

    def with_edge(self, workers: int | None, max_batch: int | None) -> Instance:
        """The same tasks before an edge with so many workers and batches. Raises OfframpError for a number below 1."""
        changed = {"edge_workers": workers, "max_batch": max_batch}
        given = {name: value for name, value in changed.items() if value is not None}
        if not given:
            return self
        network = parse_value(NetworkTerms, asdict(self.system.network) | given, "edge")
        return replace(self, system=replace(self.system, network=network))

    def to_json(self) -> str:
        """The file's text; the same bytes for the same instance."""
        system = self.system
        value: dict[str, Any] = {
            "format": "offramp.instance/1",
            "devices": system.devices,
            "bandwidth_bytes_per_s": system.bandwidth_bytes_per_s[0],
            "device_slowdown": list(system.device_slowdown),
            "device_bandwidth_bytes_per_s": list(system.bandwidth_bytes_per_s),
            "gain": {
                "accuracy_weight": system.gain.accuracy_weight,
                "accuracy_slope": system.gain.accuracy_slope,
            },
            "network": {
                "decision_s": system.network.decision_s,
                "link_delay_s": system.network.link_delay_s,
                "answer_s": system.network.answer_s,
                "edge_workers": system.network.edge_workers,
                **({"max_batch": system.network.max_batch} if system.network.max_batch > 1 else {}),
            },
            "exits": [exit.to_dict() for exit in system.exits],
            "tasks": [
                {"arrival_s": t.arrival_s, "size": t.size, "budget_s": t.budget_s, "device": t.device}
                for t in self.tasks
            ],
        }
        if len(set(system.device_slowdown)) == 1 and system.device_slowdown[0] == 1.0:
            del value["device_slowdown"]
        if len(set(system.bandwidth_bytes_per_s)) == 1:
            del value["device_bandwidth_bytes_per_s"]
        if self.scenario is not None:
            value["scenario"] = self.scenario.model_dump(mode="json")
        return dump_json(value)


def instance_of(model: InstanceModel, source: str) -> Instance:
    """The instance that a file describes. Raises OfframpError for times or bytes below 0 at the sizes of its tasks."""
    exits = tuple(
        ExitCoefficients(
            accuracy=exit.accuracy,
            device_s=np.array(exit.device_s, dtype=np.float64),
            edge_s=np.array(exit.edge_s, dtype=np.float64),
            output_bytes=np.array(exit.output_bytes, dtype=np.float64),
            codecs=tuple(
                CodedCut(
                    coded.cut,
                    coded.codec,
                    coded.accuracy,
                    coded.device_s,
                    coded.edge_s,
                    coded.output_bytes,
                )
                for coded in exit.codecs
            ),
            tables=tuple(LayerTable(table.side, table.layer, table.points) for table in exit.tables),
        )
        for exit in model.exits
    )
    links = model.device_bandwidth_bytes_per_s or (model.bandwidth_bytes_per_s or 0.0,) * model.devices
    system = System(
        exits=exits,
        device_slowdown=model.device_slowdown or (1.0,) * model.devices,
        bandwidth_bytes_per_s=links,
        gain=model.gain,
        network=model.network or NetworkTerms(),
    )
    tasks = tuple(Task(t.arrival_s, t.size, t.budget_s, t.device) for t in model.tasks)
    check_predictions(exits, {task.size for task in tasks}, source)
    scenario = None
    if isinstance(model.scenario, dict) and model.scenario.get("format") == "offramp.scenario/1":
        scenario = parse_value(Scenario, model.scenario, f"{source}: scenario")
    return Instance(system, tasks, scenario)


def check_predictions(exits: tuple[ExitCoefficients, ...], sizes: set[int], source: str) -> None:
    """Refuse sizes at which a line predicts a negative time or negative bytes. Raises OfframpError."""
    for size in sorted(sizes):
        for number, exit in enumerate(exits):
            for name in ("device_s", "edge_s", "output_bytes"):
                place = f"{source}: exits.{number}"
                _check_lines(getattr(exit, name), size, f"{place}.{name}.{{}}")
                if exit.codecs:
                    coded = np.array([getattr(each, name) for each in exit.codecs])
                    _check_lines(coded, size, f"{place}.codecs.{{}}.{name}")


def _check_lines(lines: FloatArray, size: int, place: str) -> None:
    predicted = equations.linear(lines, size)
    if (predicted < 0).any():
        row = int(np.argmax(predicted < 0))
        raise OfframpError(
            f"{place.format(row)} at size {size}",
            float(predicted[row]),
            "must be >= 0 at every size of the tasks",
            "correct the coefficients, or leave such sizes out",
        )


def parse_instance(text: str | bytes, source: str = "instance") -> Instance:
    """An instance from its JSON text. Raises OfframpError naming the field."""
    return instance_of(parse_json(InstanceModel, text, source), source)


def load_instance(path: Path) -> Instance:
    """An instance from its file. Raises OfframpError naming the field."""
    return parse_instance(read_text(path, "instance"), str(path))


def draw_tasks(scenario: Scenario, rng: np.random.Generator) -> Iterator[Task]:
    """Endless tasks of a scenario in order of arrival: instants, sizes and devices from streams of their own."""
    arrivals_rng, sizes_rng, devices_rng = rng.spawn(3)
    values, probabilities = scenario.sizes.values, scenario.sizes.probabilities()
    for arrival_s in scenario.arrivals.instants(scenario.slot_s, arrivals_rng):
        size = values[int(sizes_rng.choice(len(values), p=probabilities))]
        device = int(devices_rng.integers(scenario.devices))
        yield Task(arrival_s, size, scenario.budget_s(size), device)


def system_of(scenario: Scenario, exits: tuple[ExitCoefficients, ...]) -> System:
    """A scenario's devices and links around a model's coefficients."""
    return System(exits, scenario.slowdowns, scenario.bandwidths, scenario.gain, scenario.network)


def draw_instance(
    scenario: Scenario, exits: tuple[ExitCoefficients, ...], rng: np.random.Generator
) -> Instance:
    """M tasks of a scenario. The same generator state gives the same instance."""
    tasks = tuple(islice(draw_tasks(scenario, rng), scenario.tasks))
    check_predictions(exits, {task.size for task in tasks}, "scenario")
    return Instance(system_of(scenario, exits), tasks, scenario)
