"""The machines of a Ray cluster. Ray is imported when one is asked for, and never by `import offramp`."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from offramp.cache import code_digest
from offramp.errors import MissingExtraError, OfframpError

_ANSWER_S = 5.0
_REMEDY = "start one with `ray start --head` and give --address as it says"


@contextlib.contextmanager
def cluster(address: str | None) -> Iterator[ModuleType]:
    """Ray, connected to the cluster at HOST:PORT (None: what `RAY_ADDRESS` says) as long as this lasts.

    Raises OfframpError if no cluster answers there, MissingExtraError without Ray.
    """
    # Ray reports its use to its makers unless it is told not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ModuleNotFoundError:
        raise MissingExtraError("ray", "ray") from None
    named = address or os.environ.get("RAY_ADDRESS", "")
    _check_answer(named)
    # Ray prints what it says of lost machines to standard output, which is for results.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            ray.init(named, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
        except (ConnectionError, ray.exceptions.RaySystemError) as error:
            raise _no_cluster(named, error) from None
        try:
            yield ray
        finally:
            ray.shutdown()


def _check_answer(address: str) -> None:
    """Raises OfframpError unless somebody listens there: Ray itself would try for minutes."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if not host or not port.isdigit():
        raise OfframpError("address", address, "must be HOST:PORT of a Ray cluster", _REMEDY)
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, error) from None


def _no_cluster(address: str, error: Exception) -> OfframpError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return OfframpError("address", address, f"no Ray cluster answers ({reason})", _REMEDY)


def check_code(digest: str) -> None:
    """On a worker: raises OfframpError unless its code is the caller's, so that its numbers are."""
    if code_digest() != digest:
        raise OfframpError(
            "address",
            socket.gethostname(),
            "has other code of Offramp",
            "install the same version everywhere",
        )


def result_of(ray: Any, reference: Any, timeout_s: float | None = None) -> Any:
    """The value of a Ray reference; what the work raised is raised as it was."""
    try:
        return ray.get(reference, timeout=timeout_s)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
