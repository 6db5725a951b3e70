"""Ray Serve with one ONNX network: POST /predict takes the images' bytes and answers with the logits' bytes.

    python benchmarks/serving/ray_server.py MODEL.onnx PORT MAX_BATCH

One replica behind one proxy on a cluster of this machine.
"""

import os
import sys
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# Without this Ray takes 127.0.0.1 for a wish to be reached from elsewhere, and listens everywhere.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

HERE = str(Path(__file__).parent)
BATCH_TIMEOUT_S = 0.002
"""How long a batch waits to be filled; see `litserve_server.py`, which waits as long."""


@serve.deployment(num_replicas=1, max_ongoing_requests=1000, ray_actor_options={"num_cpus": 0.5})
class Served:
    """See the module."""

    def __init__(self, path: str, max_batch: int) -> None:
        sys.path.insert(0, HERE)
        from network import Network

        self._network = Network(path)
        self._together = max_batch > 1
        self._batched.set_max_batch_size(max_batch)
        self._batched.set_batch_wait_timeout_s(BATCH_TIMEOUT_S)

    @serve.batch
    async def _batched(self, bodies: list[bytes]) -> list[bytes]:
        return self._network.answers(bodies)

    async def __call__(self, request: Request) -> Response:
        body = await request.body()
        logits = await self._batched(body) if self._together else self._network.answer(body)
        return Response(logits, media_type="application/octet-stream")


if __name__ == "__main__":
    ray.init(
        "local",
        num_cpus=2,
        include_dashboard=False,
        logging_level="error",
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
    )
    serve.start(
        http_options={"host": "127.0.0.1", "port": int(sys.argv[2])},
        logging_config={"enable_access_log": False},
    )
    model, max_batch = str(Path(sys.argv[1]).resolve()), int(sys.argv[3])
    serve.run(Served.bind(model, max_batch), route_prefix="/predict", blocking=True)
