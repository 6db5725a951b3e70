"""The network as the other servers run it."""

from __future__ import annotations

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
        """Logits for a batch of inputs."""
        return self._session.run(None, {self._name: inputs})[0]

    def answer(self, body: bytes) -> bytes:
        """The same from bytes to bytes."""
        return self.run(np.frombuffer(body, self._dtype).reshape(self._shape)).tobytes()
