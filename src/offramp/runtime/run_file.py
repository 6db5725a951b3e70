"""A recorded run as it stands in its file, `offramp.run/1`, and what of it must fit together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from offramp.errors import OfframpError
from offramp.instance import Instance, InstanceModel
from offramp.options import System
from offramp.profile import ExitCoefficients
from offramp.runtime.outcomes import DEVICE_LOST, End, TaskRecord
from offramp.task import DROP, UNCODED, Decision, Task

LONGEST_S, LARGEST, SLOWEST = 1e7, 1_000_000, 1e6
"""Seconds, inputs in a task, slowdown: the runtime's protocol has no message with more, so no run has."""
SAME_S = 1e-6
"""A device counts its instants from a start in the life of its clock, which rounds them; they are the file's still."""
JITTER_S = 1e-3
"""Timers may ring before they are due, and the edge's begin is an estimate: so far instants may change places."""
REMEDY = "correct it, or record the run again with offramp demo --record"

Instant = Annotated[float, Field(ge=-JITTER_S, le=LONGEST_S)]
Duration = Annotated[float, Field(ge=0, le=LONGEST_S)]
Count = Annotated[int, Field(ge=0, le=2**53)]
_STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
_Named = tuple[str, float]


class PredictedModel(BaseModel):
    """Instants that were expected, seconds of the stream; any that are finite, as a plan may have been wrong."""

    model_config = _STRICT

    device_start_s: float | None = None
    send_s: float | None = None
    edge_start_s: float | None = None
    finish_s: float | None = None


class MeasuredModel(BaseModel):
    """Instants that were measured, seconds of the stream; null for what was not reached."""

    model_config = _STRICT

    device_start_s: Instant | None = None
    send_s: Instant | None = None
    edge_start_s: Instant | None = None
    finish_s: Instant | None = None


class DecisionModel(BaseModel):
    """What was decided: exit 0 turns a task away."""

    model_config = _STRICT

    exit: Count
    cut: Count
    codec: str = UNCODED


class RecordModel(BaseModel):
    """What became of one task: a `TaskRecord`, and the device (0..N-1) that had it.

    Fields with a default are not in recordings from before they were recorded.
    """

    model_config = _STRICT

    device: Count
    sequence: Count
    arrival_s: float
    size: Annotated[int, Field(ge=1, le=LARGEST)]
    budget_s: Duration
    end: End
    reason: str
    exit: Count
    cut: Count
    local: bool
    predicted: PredictedModel | None
    measured: MeasuredModel
    link_start_s: Instant | None
    sent_s: Instant | None
    gain: Annotated[float, Field(ge=0)]
    correct: Count | None = None
    labels: tuple[Count, ...]
    codec: str = UNCODED
    decided: DecisionModel | None = None
    edge_waited_s: Duration | None = None
    edge_computed_s: Duration | None = None

    def record(self) -> TaskRecord:
        """The task's record."""
        return TaskRecord.from_dict(self.model_dump(exclude={"device"}))


class LinksModel(BaseModel):
    """Recorded links of a run: where the first device's begins, and the recording, see `linked_state.Replay`."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    start_s: Annotated[float, Field(ge=0)]
    instants_ms: tuple[Annotated[int, Field(ge=0, lt=2**53)], ...]


class RunModel(BaseModel):
    """The file `offramp.run/1` as the demo writes it."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    format: Literal["offramp.run/1"]
    policy: str
    seed: Annotated[int, Field(ge=0)]
    calibrated: tuple[Annotated[float, Field(gt=0, le=SLOWEST)], ...] | None = None
    links: LinksModel | None = None
    instance: InstanceModel
    tasks: Annotated[tuple[RecordModel, ...], Field(min_length=1)]

    def records(self, instance: Instance, source: str) -> tuple[TaskRecord, ...]:
        """What became of the tasks of `instance`, which is the file's.

        Raises OfframpError, which names `source`, task and field, unless there is one record for each task that has
        its device, size, budget and arrival (within `SAME_S`), options that this device has, an answer's instant if
        and only if there was one, and instants in their order (within `JITTER_S`); and unless a device counts no two
        of its tasks alike.
        """
        if len(self.tasks) != len(instance.tasks):
            raise OfframpError(
                f"{source}: tasks", len(self.tasks), f"must be {len(instance.tasks)}", "record it again"
            )
        for number, (record, task) in enumerate(zip(self.tasks, instance.tasks, strict=True)):
            try:
                _check_task(record, task, number)
                _check_options(record, instance.system)
                _check_instants(record)
            except _FieldError as error:
                raise error.of(f"{source}: tasks.{number}") from None
        self._check_sequences(source)
        return tuple(task.record() for task in self.tasks)

    def _check_sequences(self, source: str) -> None:
        seen: dict[tuple[int, int], int] = {}
        for number, task in enumerate(self.tasks):
            if task.reason == DEVICE_LOST:
                continue  # the demo wrote this record, which does not know how the device counted
            first = seen.setdefault((task.device, task.sequence), number)
            if first != number:
                raise OfframpError(
                    f"{source}: tasks.{number}.sequence",
                    task.sequence,
                    f"must be another than that of tasks.{first}, which is of device {task.device} too",
                    REMEDY,
                )


class _FieldError(Exception):
    """A field of a record does not fit; which record that is, is for the caller to say."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(field, value, allowed)
        self._field, self._value, self._allowed = field, value, allowed

    def of(self, place: str) -> OfframpError:
        """The error for the record at that place."""
        return OfframpError(f"{place}.{self._field}", self._value, self._allowed, REMEDY)


def _check_task(record: RecordModel, task: Task, number: int) -> None:
    """A record must be of the task that it stands for."""
    for name, slack_s in (("device", 0), ("size", 0), ("budget_s", SAME_S), ("arrival_s", SAME_S)):
        given, expected = getattr(record, name), getattr(task, name)
        if abs(given - expected) > slack_s:
            within = f" (within {slack_s} s)" if slack_s else ""
            raise _FieldError(name, given, f"must be {expected}{within}, as instance.tasks.{number} has it")


def _check_options(record: RecordModel, system: System) -> None:
    """What was decided and what was done must be options of the model, or nothing."""
    options = system.options(record.device, record.size)
    done = Decision(record.exit, record.cut, record.codec)
    if done.exit and not options.offers(done):
        raise _no_option(done, "", system.exits)
    if not done.exit and done != DROP:
        name, value = ("cut", done.cut) if done.cut else ("codec", done.codec)
        raise _FieldError(name, value, f"must be {getattr(DROP, name)} at exit 0")
    if record.decided is not None and record.decided.exit:
        decided = Decision(record.decided.exit, record.decided.cut, record.decided.codec)
        if not options.offers(decided):
            raise _no_option(decided, "decided.", system.exits)


def _no_option(decision: Decision, place: str, exits: Sequence[ExitCoefficients]) -> _FieldError:
    """The first of exit, cut and codec that is none of the model's."""
    if decision.exit > len(exits):
        return _FieldError(f"{place}exit", decision.exit, f"must be in 0..{len(exits)}")
    exit = exits[decision.exit - 1]
    if decision.cut > exit.layers:
        allowed = f"must be in 0..{exit.layers} at exit {decision.exit}"
        return _FieldError(f"{place}cut", decision.cut, allowed)
    codecs = [UNCODED, *(coded.codec for coded in exit.codecs if coded.cut == decision.cut)]
    allowed = f"must be one of {', '.join(codecs)} at exit {decision.exit}, cut {decision.cut}"
    return _FieldError(f"{place}codec", decision.codec, allowed)


def _check_instants(record: RecordModel) -> None:
    """There is an answer if the end says so, and what happened is in its order."""
    answered, finish_s = record.end in (End.ON_TIME, End.LATE), record.measured.finish_s
    if answered and record.exit == 0:
        raise _FieldError("exit", 0, f"must be >= 1 of a task that ended {record.end}")
    if answered != (finish_s is not None):
        allowed = f"must be {'a number' if answered else 'null'} of a task that ended {record.end}"
        raise _FieldError("measured.finish_s", finish_s, allowed)
    for way in _ways(record):
        _check_order([(name, at_s) for name, at_s in way if at_s is not None])
    _check_edge(record)


def _check_edge(record: RecordModel) -> None:
    """The edge cannot have computed for longer than the task was away from its device."""
    computed_s, start_s, finish_s = record.edge_computed_s, record.link_start_s, record.measured.finish_s
    if computed_s is None or start_s is None or finish_s is None:
        return
    if computed_s > finish_s - start_s + JITTER_S:
        allowed = f"must be at most {finish_s - start_s}, measured.finish_s less link_start_s"
        raise _FieldError("edge_computed_s", computed_s, allowed)


def _ways(record: RecordModel) -> Sequence[Sequence[tuple[str, float | None]]]:
    """Instants, null where not reached, each way in the order in which they happen."""
    at = record.measured
    begin = [("arrival_s", record.arrival_s), ("measured.device_start_s", at.device_start_s)]
    send = [("measured.send_s", at.send_s)]
    edge = [
        ("link_start_s", record.link_start_s),
        ("sent_s", record.sent_s),
        ("measured.edge_start_s", at.edge_start_s),
    ]
    finish = [("measured.finish_s", at.finish_s)]
    if record.local:
        # A device that has uploaded a task in vain computes it again, and send_s is when it is done with that.
        return [*begin, *send, *finish], [*begin, *edge, *finish]
    return ([*begin, *send, *edge, *finish],)


def _check_order(way: Sequence[_Named]) -> None:
    """Each instant must be no earlier than the one before it, within `JITTER_S`."""
    wrong = [place for place in range(1, len(way)) if not _in_order(way[place - 1 : place + 1])]
    if not wrong:
        return
    # The one to name is the one without which the others are in order: not its neighbour that it has overtaken.
    alone = (place for place in range(1, len(way)) if _in_order([*way[:place], *way[place + 1 :]]))
    place = next(alone, wrong[0])
    (before, least_s), (name, at_s) = way[place - 1 : place + 1]
    allowed = f"must be no earlier than {least_s} ({before})"
    if place + 1 < len(way) and way[place + 1][1] >= least_s:
        after, most_s = way[place + 1]
        allowed += f" and no later than {most_s} ({after})"
    raise _FieldError(name, at_s, allowed)


def _in_order(way: Sequence[_Named]) -> bool:
    return all(later_s >= earlier_s - JITTER_S for (_, earlier_s), (_, later_s) in pairwise(way))
