"""A learner that plays on a machine of a Ray cluster, and begins again from its last checkpoint if that is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from offramp.cache import code_digest
from offramp.cluster import check_code, result_of
from offramp.policies.network_file import Arrays
from offramp.training.policy import Learner


class RemoteLearner:
    """A `Learner` that plays what the one that `make` makes would, with the same file at the end.

    A lost worker is replaced: it takes up the last checkpoint that was asked for, and plays again what came after.
    """

    def __init__(self, ray: Any, make: Callable[[], Learner]) -> None:
        self._ray, self._make = ray, make
        local = make()
        self._identity, self._steps = local.identity, local.steps
        self._done, self._finished = local.done, local.finished
        self._kept: Arrays | None = None
        self._host: Any = None

    @property
    def identity(self) -> str:
        """See `Learner`."""
        return self._identity

    @property
    def steps(self) -> int:
        """See `Learner`."""
        return self._steps

    @property
    def done(self) -> int:
        """See `Learner`."""
        return self._done

    @property
    def finished(self) -> bool:
        """See `Learner`."""
        return self._finished

    def advance(self) -> float:
        """See `Learner`."""
        # A worker that took up a checkpoint is behind what has been reported, until it has caught up.
        before = self._done
        while True:
            gain, done, self._finished = self._ask("advance")
            if done > before:
                self._done = done
                return float(gain)

    def checkpoint(self) -> Arrays:
        """See `Learner`; a worker that replaces a lost one begins here."""
        while True:
            arrays, done = self._ask("checkpoint")
            if done == self._done:
                self._kept = arrays
                return dict(arrays)
            self._ask("advance")

    def restore(self, arrays: Arrays) -> None:
        """See `Learner`."""
        self._kept, self._host = arrays, None
        self._done, self._finished = self._ask("standing")

    def to_bytes(self) -> bytes:
        """See `Learner`."""
        while True:
            content, done = self._ask("file")
            if done == self._done:
                return bytes(content)
            self._ask("advance")

    def _ask(self, method: str) -> Any:
        while True:
            try:
                if self._host is None:
                    self._host = self._ray.remote(num_cpus=1, max_restarts=0)(_Host).remote()
                    begun = self._host.begin.remote(self._make, self._kept, code_digest())
                    result_of(self._ray, begun)
                return result_of(self._ray, getattr(self._host, method).remote())
            except self._ray.exceptions.RayActorError:
                self._host = None


class _Host:
    """A learner on a worker."""

    _learner: Learner

    def begin(self, make: Callable[[], Learner], kept: Arrays | None, digest: str) -> None:
        check_code(digest)
        self._learner = make()
        if kept is not None:
            self._learner.restore(kept)

    def standing(self) -> tuple[int, bool]:
        return self._learner.done, self._learner.finished

    def advance(self) -> tuple[float, int, bool]:
        return self._learner.advance(), *self.standing()

    def checkpoint(self) -> tuple[Arrays, int]:
        return self._learner.checkpoint(), self._learner.done

    def file(self) -> tuple[bytes, int]:
        return self._learner.to_bytes(), self._learner.done
