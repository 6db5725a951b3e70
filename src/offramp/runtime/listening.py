"""A port on loopback, for programs on the same machine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from offramp.errors import OfframpError

HOST = "127.0.0.1"


async def listening(server: Awaitable[asyncio.Server], option: str, port: int) -> tuple[asyncio.Server, int]:
    """The server, when it listens, and its port; `port` is what was asked of it. OfframpError if it cannot.

    `option` is the one that named the port.
    """
    try:
        started = await server
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OfframpError(option, port, f"cannot be listened on ({reason})", "choose a free one") from None
    bound: int = started.sockets[0].getsockname()[1]
    return started, bound
