"""The network as the other servers run it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime as ort


class Network:
    """One session with one thread that does not spin, as the edge has them."""

    def __init__(self, path: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        given = self._session.get_inputs()[0]
        self._name, self._shape = given.name, (-1, *given.shape[1:])
        self._dtype = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}[given.type]

    def run(self, inputs: np.ndarray) -> np.ndarray:
        """Logits of the first exit for a batch of inputs."""
        return self.all_exits(inputs)[0]

    def all_exits(self, inputs: np.ndarray) -> list[np.ndarray]:
        """Logits of every exit."""
        return self._session.run(None, {self._name: inputs})

    def answer(self, body: bytes) -> bytes:
        """Logits from bytes to bytes."""
        return self.run(self._inputs(body)).tobytes()

    def answers(self, bodies: Sequence[bytes]) -> list[bytes]:
        """The same for tasks that are run together, each with its own logits back."""
        tasks = [self._inputs(body) for body in bodies]
        logits = self.run(np.concatenate(tasks))
        ends = np.cumsum([len(task) for task in tasks])
        return [part.tobytes() for part in np.split(logits, ends[:-1])]

    def _inputs(self, body: bytes) -> np.ndarray:
        return np.frombuffer(body, self._dtype).reshape(self._shape)
