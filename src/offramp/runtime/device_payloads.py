"""What a device holds of its tasks in flight: their inputs, what crosses their cuts, and their answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from offramp.model.tensors import Array
from offramp.runtime.device_job import Carry, Compute
from offramp.runtime.outcomes import TaskRecord
from offramp.runtime.processor import Coded, Computed, Executor
from offramp.runtime.protocol import Answer, CodedUpload, Upload
from offramp.runtime.wire import array_of, wires_of
from offramp.runtime.workload import Samples
from offramp.task import UNCODED


class Payloads:
    """By a task's sequence, from `accept` to `judge`."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._inputs: dict[int, Samples] = {}
        self._tensors: dict[int, Mapping[str, Array]] = {}
        self._coded: dict[int, Coded] = {}
        self._logits: dict[int, Array] = {}

    def accept(self, sequence: int, inputs: Samples) -> None:
        """A task comes with these."""
        self._inputs[sequence] = inputs

    def given(self, action: Compute) -> Mapping[str, Array]:
        """What a computation begins with: the inputs, or what was kept at a cut."""
        return self._tensors[action.sequence] if action.start else self._inputs[action.sequence].inputs

    def cross_as_they_are(self, action: Compute) -> None:
        """All layers are the edge's: what crosses is the inputs themselves."""
        given = self._inputs[action.sequence].inputs
        crossing = self._executor.boundary(action.exit, 0)
        self._tensors[action.sequence] = {spec.name: given[spec.name] for spec in crossing}

    def computed(self, sequence: int, made: Computed) -> None:
        """Keep what has been computed, unless an answer has ended the task meanwhile."""
        if sequence not in self._inputs:
            return
        self._tensors[sequence] = made.tensors
        if made.coded is not None:
            self._coded[sequence] = made.coded

    def upload(self, action: Carry) -> Upload | CodedUpload:
        """What crosses, in a message that does not say yet how much of the budget is left."""
        place = (action.sequence, action.exit, action.cut, action.size)
        if action.codec == UNCODED:
            return Upload(*place, 0.0, wires_of(self._tensors[action.sequence]))
        coded = self._coded.pop(action.sequence)
        return CodedUpload(*place, 0.0, coded.codec, memoryview(coded.payload))

    def answered(self, answer: Answer, exit: int) -> None:
        """Keep the logits of a task that was uploaded for an exit. Raises ProtocolError if they are not that exit's."""
        inputs = self._inputs.get(answer.sequence)
        if inputs is not None:
            spec = self._executor.boundary(exit, self._executor.layers(exit))[0]
            self._logits[answer.sequence] = array_of(answer.logits, spec, len(inputs))

    def judge(self, record: TaskRecord) -> TaskRecord:
        """A task has ended: its record with the answer, and how much of it is right; what it held is dropped."""
        sequence = record.sequence
        inputs = self._inputs.pop(sequence)
        tensors = self._tensors.pop(sequence, None)
        self._coded.pop(sequence, None)
        logits = self._logits.pop(sequence, None)
        if not record.answered:
            return record
        if logits is None and tensors is not None:
            logits = next(iter(tensors.values()))
        assert logits is not None
        return _judged(record, logits, inputs.labels)


def _judged(record: TaskRecord, logits: Array, labels: npt.NDArray[np.int64] | None) -> TaskRecord:
    classes = np.argmax(logits.reshape(len(logits), -1), axis=1)
    correct = None if labels is None else int(np.count_nonzero(classes == labels))
    return replace(record, labels=tuple(int(label) for label in classes), correct=correct)
