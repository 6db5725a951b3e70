"""Logs on standard error: lines for a person, or one JSON object a line for a collector."""

from __future__ import annotations

import json
import logging
import time

from offramp.errors import OfframpError

FORMATS = ("text", "json")


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


def start_logging(form: str, *, level: int = logging.WARNING) -> None:
    """Send this process's logs to standard error. Raises OfframpError for an unknown format."""
    if form not in FORMATS:
        raise OfframpError("log-format", form, f"one of {', '.join(FORMATS)}", "choose one of these")
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonLines()
        if form == "json"
        else logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    if form == "json":
        # A collector wants the ordinary course of things as well: sessions, refusals, reconnections.
        logging.getLogger("offramp").setLevel(logging.INFO)
