"""LitServe with one ONNX network: POST /predict takes the images' bytes and answers with the logits' bytes.

    python benchmarks/serving/litserve_server.py MODEL.onnx PORT MAX_BATCH

One worker; requests go to it by ZeroMQ (`fast_queue`), and nothing is turned into JSON on the way.
"""

import sys
from typing import Annotated

import litserve
from fastapi import Body, Response
from network import Network

Octets = Annotated[bytes, Body(media_type="application/octet-stream")]
BATCH_TIMEOUT_S = 0.002
"""How long a batch waits to be filled; see `ray_server.py`, which waits as long."""


class Api(litserve.LitAPI):
    """See the module."""

    def __init__(self, path: str, max_batch: int) -> None:
        batched = {"max_batch_size": max_batch, "batch_timeout": BATCH_TIMEOUT_S} if max_batch > 1 else {}
        super().__init__(**batched)
        self._path = path

    def setup(self, device: str) -> None:
        self._network = Network(self._path)

    def decode_request(self, request: Octets) -> bytes:
        return request

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        return inputs

    def predict(self, asked: bytes | list[bytes]) -> bytes | list[bytes]:
        return self._network.answers(asked) if isinstance(asked, list) else self._network.answer(asked)

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        return output

    def encode_response(self, logits: bytes) -> Response:
        return Response(logits, media_type="application/octet-stream")


if __name__ == "__main__":
    api = Api(sys.argv[1], int(sys.argv[3]))
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=False, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[2]),
        num_api_servers=1,
        log_level="error",
        access_log=False,
        generate_client_file=False,
    )
