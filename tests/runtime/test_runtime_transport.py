"""Settings of gRPC that it takes from the environment."""

from __future__ import annotations

import pytest

from offramp.runtime.transport import poll_in_queues


@pytest.mark.parametrize(
    ("version", "told"),
    [("1.79.0", False), ("1.80.0", True), ("1.85.1", True), ("1.86.0rc1", False), ("2.0.0", False)],
)
def test_grpc_is_told_how_to_poll_where_it_knows_the_setting(version: str, told: bool) -> None:
    environment: dict[str, str] = {}
    poll_in_queues(environment, version)
    assert ("GRPC_EXPERIMENTS" in environment) is told


def test_what_somebody_has_set_stays() -> None:
    environment = {"GRPC_EXPERIMENTS": "all"}
    poll_in_queues(environment, "1.85.1")
    assert environment == {"GRPC_EXPERIMENTS": "all"}
