"""The edge's port for programs on its own machine: tasks with their inputs in, answers out. See `client_protocol`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import cast

from offramp.runtime.client_protocol import Frames, Offer, decode_from_client, framed
from offramp.runtime.edge_core import EdgeCore
from offramp.runtime.listening import HOST, listening
from offramp.runtime.protocol import Hello, Message, Refusal, Refused
from offramp.runtime.wire import ProtocolError

OPENING_S = 2.0
"""How long a new connection may take to say who it is."""
UNREAD_BYTES = 4 * 1024 * 1024
"""A client that lets so much of what it is sent wait is cut off."""
CLOSING_S = 1.0
"""How long a connection may take to be rid of what was sent, where the port ends."""
_LOG = logging.getLogger(__name__)


class ClientPort:
    """Listens on loopback. `act` carries out what the core asks for."""

    def __init__(
        self, core: EdgeCore, act: Callable[[], None], clock: Callable[[], float], max_frame_bytes: int
    ) -> None:
        self.core = core
        self.act = act
        self.clock = clock
        self.max_frame_bytes = max_frame_bytes
        self._lines: dict[bytes, _Line] = {}
        self._all: set[_Line] = set()
        self._none_left = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def start(self, port: int) -> int:
        """Listen; gives the port. Raises OfframpError if that cannot be done."""
        opening = asyncio.get_running_loop().create_server(lambda: _Line(self), HOST, port)
        self._server, bound = await listening(opening, "client-port", port)
        return bound

    async def stop(self) -> None:
        """Listen no more, and end all connections."""
        if self._server is not None:
            self._server.close()
        for line in list(self._all):
            line.close()
        if self._all:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._none_left.wait(), CLOSING_S)
        for line in list(self._all):
            line.abort()
        if self._server is not None:
            await self._server.wait_closed()

    def send(self, session: bytes, message: Message) -> bool:
        """Send a message to a session of this port; False if it is none."""
        line = self._lines.get(session)
        if line is None:
            return False
        line.send(message)
        return True

    def hang(self, session: bytes) -> None:
        """End a session's connection."""
        if (line := self._lines.get(session)) is not None:
            line.close()

    def came(self, line: _Line, session: bytes | None = None) -> None:
        """A connection is there, or has opened a session."""
        self._none_left.clear()
        self._all.add(line)
        if session is not None:
            self._lines[session] = line

    def went(self, line: _Line, session: bytes | None) -> None:
        """A connection is no more."""
        self._all.discard(line)
        if not self._all:
            self._none_left.set()
        if session is not None:
            self._lines.pop(session, None)
            self.core.gone(session, self.clock())
            self.act()


class _Line(asyncio.BufferedProtocol):
    """One connection."""

    def __init__(self, port: ClientPort) -> None:
        self._port = port
        self._frames = Frames(port.max_frame_bytes)
        self._session: bytes | None = None
        self._opening: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._opening = asyncio.get_running_loop().call_later(OPENING_S, self._transport.abort)
        self._port.came(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self._opening is not None:
            self._opening.cancel()
        self._port.went(self, self._session)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._frames.room()

    def buffer_updated(self, nbytes: int) -> None:
        try:
            for frame in self._frames.filled(nbytes):
                self._take(frame)
        except ProtocolError as error:
            _LOG.warning("a client is cut off: %s", error)
            self.send(Refused(Refusal.PROTOCOL, str(error)[:200], "a valid message", ""))
            self._transport.close()
        self._port.act()

    def _take(self, frame: bytes) -> None:
        message = decode_from_client(frame)
        port = self._port
        if self._session is not None:
            if isinstance(message, Offer):
                port.core.offer(self._session, message, port.clock())
            else:
                port.core.control(self._session, message, port.clock())
            return
        if not isinstance(message, Hello):
            raise ProtocolError("the first message must be a hello")
        opened = port.core.hello(message, port.clock())
        if isinstance(opened, Refused):
            self.send(opened)
            self._transport.close()
            return
        if self._opening is not None:
            self._opening.cancel()
        self._session = opened
        port.came(self, opened)

    def send(self, message: Message) -> None:
        """Send a message, unless the other side has stopped to read."""
        if self._transport.get_write_buffer_size() > UNREAD_BYTES:
            _LOG.warning("a client does not read what it is sent: cut off")
            self._transport.abort()
        elif not self._transport.is_closing():
            self._transport.write(framed(message))

    def close(self) -> None:
        """End the connection when what was sent is on its way."""
        self._transport.close()

    def abort(self) -> None:
        """End the connection now."""
        self._transport.abort()
