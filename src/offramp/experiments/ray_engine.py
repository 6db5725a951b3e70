"""Work on the machines of a Ray cluster. Only this module and `training.remote` import Ray, and only when they run."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from offramp.errors import MissingExtraError, OfframpError
from offramp.experiments.cells import code_digest

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def cluster(address: str | None) -> Iterator[Any]:
    """Ray, connected to the cluster at an address (None: this machine's, or `RAY_ADDRESS`) as long as this lasts.

    Raises OfframpError if no cluster answers there, MissingExtraError without Ray.
    """
    # Ray reports its use to its makers unless it is told not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ModuleNotFoundError:
        raise MissingExtraError("ray", "ray") from None
    try:
        ray.init(address or "auto", log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise OfframpError(
            "address", address or "auto", f"no Ray cluster answers ({reason})", "start one with `ray start`"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


class RayEngine:
    """Workers of a Ray cluster, one core for each item. What a lost worker was at is done again by another."""

    def __init__(self, address: str | None = None) -> None:
        self._address = address

    def run(self, work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
        """See `Engine`. OfframpError if no cluster answers, or if its machines have other code of Offramp's."""
        with cluster(self._address) as ray:
            # Results come back by value to this process, so none is lost with the machine that made it.
            remote = ray.remote(max_retries=-1, num_cpus=1)(_checked)
            shared = ray.put((work, code_digest()))
            running = {remote.remote(shared, item): item for item in items}
            try:
                while running:
                    (done,), _ = ray.wait(list(running), num_returns=1)
                    item = running.pop(done)
                    try:
                        result = ray.get(done)
                    except ray.exceptions.RayTaskError as error:
                        raise error.cause from None
                    yield item, result
            finally:
                for reference in running:
                    ray.cancel(reference, force=True)


def _checked(shared: tuple[Callable[[Any], Any], str], item: Any) -> Any:
    """Do one item's work where the code is the caller's, so that the numbers are."""
    work, digest = shared
    if code_digest() != digest:
        raise OfframpError(
            "address", os.uname().nodename, "has other code of Offramp", "install the same version everywhere"
        )
    return work(item)
