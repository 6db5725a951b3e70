"""Ray Serve with one ONNX network: POST /predict takes the images' bytes and answers with the logits' bytes.

    python benchmarks/serving/ray_server.py MODEL.onnx PORT

One replica behind one proxy on a cluster of this machine.
"""

import sys
from pathlib import Path

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

HERE = str(Path(__file__).parent)


@serve.deployment(num_replicas=1, max_ongoing_requests=1000, ray_actor_options={"num_cpus": 0.5})
class Served:
    """See the module."""

    def __init__(self, path: str) -> None:
        sys.path.insert(0, HERE)
        from network import Network

        self._network = Network(path)

    async def __call__(self, request: Request) -> Response:
        return Response(self._network.answer(await request.body()), media_type="application/octet-stream")


if __name__ == "__main__":
    ray.init("local", num_cpus=2, include_dashboard=False, logging_level="error", log_to_driver=False)
    serve.start(
        http_options={"host": "127.0.0.1", "port": int(sys.argv[2])},
        logging_config={"enable_access_log": False},
    )
    serve.run(Served.bind(str(Path(sys.argv[1]).resolve())), route_prefix="/predict", blocking=True)
