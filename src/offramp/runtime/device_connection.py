"""How a device finds its edge, again and again: one session after the other, with pauses between."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from offramp.errors import OfframpError
from offramp.runtime.device_session import Handlers, Session, SessionEndedError, SessionRefusedError
from offramp.runtime.protocol import Hello, Message, Result, ToDevice, Welcome

if TYPE_CHECKING:
    from offramp.runtime.certificates import Identity as Credentials

FIRST_CONTACT_S = 5.0
"""How long a device looks for its edge before it says that there is none."""
OPENING_S = 1.5
"""How long an attempt to open a session may take: a new one is better than an old one whose packets were lost."""
BACKOFF_S = (0.1, 0.8)
"""First and longest pause between attempts to reach the edge again."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the edge is, the largest frame that the model can need, and who the device is under TLS."""

    address: str
    max_frame_bytes: int
    credentials: Credentials | None = None


@dataclass(frozen=True, slots=True)
class Listener:
    """Who is told of a session's beginning and end, of its messages, and of signs of life that are missing."""

    opened: Callable[[Welcome], None]
    lost: Callable[[], None]
    control: Callable[[ToDevice], None]
    tensors: Callable[[Result], None]
    silent: Callable[[bool], None]


class Connection:
    """`open`, then `close`; what is said while there is no session goes nowhere."""

    def __init__(
        self,
        endpoint: Endpoint,
        hello: Callable[[], Hello],
        listener: Listener,
        clock: Callable[[], float],
    ) -> None:
        self._endpoint = endpoint
        self._hello = hello
        self._listener = listener
        self._clock = clock
        self._session: Session | None = None
        self._closing = False
        self._running: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a session."""
        return self._session is not None

    async def open(self) -> None:
        """Reach the edge. Raises OfframpError if there is none or it does not take this device."""
        opened = asyncio.get_running_loop().create_future()
        self._running = asyncio.ensure_future(self._stay_connected(opened))
        try:
            await asyncio.wait_for(asyncio.shield(opened), FIRST_CONTACT_S)
        except TimeoutError:
            address, remedy = self._endpoint.address, "start one with offramp edge"
            if self._endpoint.credentials is not None:
                remedy += ", with a certificate of the same authority for this host"
            raise OfframpError("edge", address, "no edge answers there", remedy) from None

    def say(self, message: Message) -> None:
        """Send a control message."""
        if self._session is not None:
            self._session.say(message)

    def sender(self) -> Callable[[bytes], None]:
        """What sends encoded messages in the present session, and in no other that may follow it."""
        return _send_nowhere if self._session is None else self._session.send_frame

    def send_frame(self, frame: bytes) -> None:
        """Send an encoded message on the stream of tensors."""
        if self._session is not None:
            self._session.send_frame(frame)

    def last_session(self) -> None:
        """When the present session ends, open none."""
        self._closing = True

    async def close(self) -> None:
        """End the session when what is queued has been sent, or after a second."""
        if self._session is not None:
            self._session.finish()
        if self._running is not None:
            await asyncio.wait({self._running}, timeout=1.0)
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _stay_connected(self, opened: asyncio.Future[None]) -> None:
        pause_s = BACKOFF_S[0]
        while not self._closing:
            session = self._new_session(opened)
            try:
                await session.run()
            except SessionRefusedError as error:
                if not opened.done():
                    opened.set_exception(error.as_input_error())
                    return
                _LOG.warning("the edge refuses this device: %s", error.as_input_error())
            except SessionEndedError as error:
                _LOG.info("no session: %s", error)
            except Exception:  # noqa: BLE001 - whatever has ended it, the device must find its edge again
                _LOG.exception("a session has ended unforeseen")
            if self._session is session:
                pause_s = BACKOFF_S[0]
                self._session = None
                self._listener.lost()
            # Devices that lose their edge together must not come back together.
            if not self._closing:
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(2 * pause_s, BACKOFF_S[1])

    def _new_session(self, opened: asyncio.Future[None]) -> Session:
        def welcomed(welcome: Welcome) -> None:
            self._session = session
            self._listener.opened(welcome)
            if not opened.done():
                opened.set_result(None)

        listener = self._listener
        session = Session(
            self._endpoint.address,
            self._hello(),
            Handlers(welcomed, listener.control, listener.tensors, listener.silent),
            self._clock,
            max_frame_bytes=self._endpoint.max_frame_bytes,
            credentials=self._endpoint.credentials,
            opening_s=OPENING_S,
        )
        return session


def _send_nowhere(frame: bytes) -> None:
    """There is no session."""
