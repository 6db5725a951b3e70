"""Logs on standard error: lines for a person, or one JSON object a line for a collector."""

from __future__ import annotations

import atexit
import json
import logging
import os
import queue
import threading
import time

from offramp.errors import OfframpError

FORMATS = ("text", "json")
BACKLOG = 10_000
"""Lines that may wait for standard error; beyond, they are dropped and counted."""
_STDERR = 2
_LAST_WORDS_S = 1.0


class JsonLines(logging.Formatter):
    """One JSON object a record: `time` (UTC), `level`, `logger`, `message`, and `exception` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


class Aside(logging.Handler):
    """Writes to standard error on a thread of its own: whoever does not read it must not hold the work up."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: queue.Queue[str | None] = queue.Queue(BACKLOG)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="logs", daemon=True)
        self._thread.start()
        atexit.register(self._finish)

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        try:
            if self._dropped:
                self._lines.put_nowait(f"{self._dropped} log lines were dropped")
                self._dropped = 0
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._dropped += 1

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            left = (line + "\n").encode(errors="replace")
            while left:
                try:
                    left = left[os.write(_STDERR, left) :]
                except OSError:
                    return

    def _finish(self) -> None:
        # A reader that hangs must not keep the process from ending either.
        try:
            self._lines.put_nowait(None)
        except queue.Full:
            return
        self._thread.join(_LAST_WORDS_S)


def check_log_format(form: str) -> None:
    """Raises OfframpError if logs cannot be written so."""
    if form not in FORMATS:
        raise OfframpError("log-format", form, f"one of {', '.join(FORMATS)}", "choose one of these")


def start_logging(form: str, *, level: int = logging.WARNING) -> None:
    """Send this process's logs to standard error. Raises OfframpError for an unknown format."""
    check_log_format(form)
    handler = Aside()
    handler.setFormatter(
        JsonLines()
        if form == "json"
        else logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    if form == "json":
        # A collector wants the ordinary course of things as well: sessions, refusals, reconnections.
        logging.getLogger("offramp").setLevel(logging.INFO)
