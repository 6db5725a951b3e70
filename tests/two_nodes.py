"""A Ray cluster of two nodes on this machine, for tests."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import pytest

installed = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")


class TwoNodes:
    """A head node that stays, and a second one that can be killed and replaced."""

    def __init__(self) -> None:
        # Without this Ray takes 127.0.0.1 for a wish to be reached from elsewhere, and listens everywhere.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        from ray.cluster_utils import Cluster

        self._at = {"node_ip_address": "127.0.0.1", "num_cpus": 1, "object_store_memory": 80 << 20}
        self._cluster = Cluster(initialize_head=True, head_node_args={**self._at, "include_dashboard": False})
        self.second: Any = self._cluster.add_node(**self._at)

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def kill_second(self) -> None:
        self._cluster.remove_node(self.second, allow_graceful=False)
        self.second = None

    def renew(self) -> None:
        if self.second is None:
            self.second = self._cluster.add_node(**self._at)

    def stop(self) -> None:
        self._cluster.shutdown()
