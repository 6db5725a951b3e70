"""Processes under a supervisor: JSON lines to it on standard output, orders from it on standard input.

A supervised process ends when its standard input does, so none outlives its supervisor.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

Event = dict[str, Any]
LINE_BYTES = 1 << 20
TERMINATE_S = 4.0
"""How long a process may take to drain before it is killed."""


def emit(event: Event) -> None:
    """Tell the supervisor something, as long as there is one: without it this process is about to end."""
    # The process's own output, whatever stands in for it: see `offramp.cluster`.
    stream = sys.__stdout__ or sys.stdout
    with contextlib.suppress(BrokenPipeError):
        stream.write(json.dumps(event) + "\n")
        stream.flush()


class OrphanedError(Exception):
    """The supervisor is gone."""


class Orders:
    """What the supervisor says, line by line; `on_end` is called when it is gone."""

    def __init__(self, on_end: Callable[[], None]) -> None:
        self._on_end = on_end
        self._lines: asyncio.Queue[Event | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to listen."""
        reader = asyncio.StreamReader(LINE_BYTES)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        self._task = asyncio.ensure_future(self._read(reader))

    async def next(self) -> Event:
        """The next order. Raises OrphanedError if none will come."""
        order = await self._lines.get()
        if order is None:
            raise OrphanedError
        return order

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            self._lines.put_nowait(json.loads(line))
        self._lines.put_nowait(None)
        self._on_end()

    def stop(self) -> None:
        """Listen no more."""
        if self._task is not None:
            self._task.cancel()


class ChildError(Exception):
    """A supervised process ended before it was asked to: its status and last words."""

    def __init__(self, name: str, status: int, words: str) -> None:
        super().__init__(f"{name} ended with status {status}: {words}")
        self.status, self.words = status, words


class Child:
    """One `offramp` command as a supervised process, in a session of its own so that Ctrl-C is ours to pass on."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self._process = process
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._words: list[str] = []
        self._readers = [
            asyncio.ensure_future(self._read_events()),
            asyncio.ensure_future(self._read_words()),
        ]

    @classmethod
    async def start(cls, name: str, arguments: Sequence[str]) -> Child:
        """Start `offramp ARGUMENTS --supervised`."""
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "offramp",
            *arguments,
            "--supervised",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LINE_BYTES,
            start_new_session=True,
            env=environment,
        )
        return cls(name, process)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def order(self, order: Event) -> None:
        """Tell the process something; a process that is gone is noticed by its events."""
        assert self._process.stdin is not None
        self._process.stdin.write((json.dumps(order) + "\n").encode())

    async def next(self) -> Event | None:
        """Its next event; None when there are no more."""
        return await self._events.get()

    async def expect(self, kind: str) -> Event:
        """Its next event, which must be of this kind. Raises ChildError if the process ends instead."""
        event = await self._events.get()
        if event is None or event.get("event") != kind:
            status = await self._process.wait()
            await asyncio.gather(*self._readers, return_exceptions=True)
            raise ChildError(self.name, status, self._words[-1] if self._words else f"got {event}")
        return event

    async def stop(self) -> int:
        """Let it drain, kill it if it does not, and wait for its end; its status."""
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), TERMINATE_S)
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self._process.wait()
        await asyncio.gather(*self._readers, return_exceptions=True)
        return self._process.returncode or 0

    def kill(self) -> None:
        """End it at once."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    async def _read_events(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            # A library may print something of its own.
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict):
                    self._events.put_nowait(event)
        self._events.put_nowait(None)

    async def _read_words(self) -> None:
        assert self._process.stderr is not None
        while line := await self._process.stderr.readline():
            self._words.append(line.decode(errors="replace").rstrip())
            del self._words[:-50]
