"""The standard health service of gRPC, `grpc.health.v1.Health`, for the edge.

Its two messages have one field each, so their bytes are written here and no generated code is needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

SERVICE = "grpc.health.v1.Health"
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"
WATCH_S = 0.5


class Health:
    """`Check` and `Watch`; every service's health is the edge's."""

    def __init__(self, serving: Callable[[], bool]) -> None:
        self._serving = serving

    def handler(self) -> Any:
        """For `grpc.aio.server.add_generic_rpc_handlers`."""
        methods = {
            "Check": grpc.unary_unary_rpc_method_handler(self._check),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def _now(self) -> bytes:
        return SERVING if self._serving() else NOT_SERVING

    async def _check(self, request: bytes, context: Any) -> bytes:
        return self._now()

    async def _watch(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        last = b""
        while True:
            if (now := self._now()) != last:
                yield now
                last = now
            await asyncio.sleep(WATCH_S)
