"""The engine that runs work on the machines of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from offramp.cache import code_digest
from offramp.cluster import check_code, cluster, result_of

Item = TypeVar("Item")
Result = TypeVar("Result")


class RayEngine:
    """Workers of a Ray cluster, one core for each item. What a lost worker was at is done again by another."""

    def __init__(self, address: str | None = None) -> None:
        self._address = address

    def run(self, work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
        """See `Engine`. OfframpError if no cluster answers, or if its machines have other code of Offramp's.

        Results come to this process as they are done, and those are not lost with the machine that made them.
        """
        with cluster(self._address) as ray:
            remote = ray.remote(max_retries=-1, num_cpus=1)(_checked)
            shared = ray.put((work, code_digest()))
            running = {remote.remote(shared, item): item for item in items}
            try:
                while running:
                    (done,), _ = ray.wait(list(running), num_returns=1)
                    yield running.pop(done), result_of(ray, done)
            finally:
                for reference in running:
                    ray.cancel(reference, force=True)


def _checked(shared: tuple[Callable[[Any], Any], str], item: Any) -> Any:
    """Do one item's work, on a worker."""
    work, digest = shared
    check_code(digest)
    return work(item)
