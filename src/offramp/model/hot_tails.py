"""Tails that almost every task has, each as one session, beside the chain of blocks that runs all others."""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from offramp.errors import OfframpError
from offramp.model.executor import ChainExecutor, given_tensors
from offramp.model.extract import BlockWriter
from offramp.model.pool import WeightPool, packed_bytes
from offramp.model.sessions import run_session
from offramp.model.tensors import Array, TensorSpec

RECENT = 64
"""Runs that say what is hot."""
HOT_SHARE = 0.9
"""Share of them from which a tail is worth a session of its own."""
FORETOLD = 8
"""Runs that a task counts for which is expected: what has been idle must not get to know anew what it does."""
COLD_SHARE = 0.5
"""Share below which it is not worth that any more."""
LOOK = 16
"""Runs between two looks at the shares."""
PAUSE = 1024
"""Runs from one session's making to the next: a mix that keeps changing must not keep the edge busy with that."""
MOST_MEMORY = 0.25
"""What a session may take for weights beside the chain's, as a share of all the model's weights."""
ALWAYS_BYTES = 1 << 20
"""But so much it may always take: that is a hundredth of what the process takes without any model."""
LARGEST_ELEMENTS = 1 << 22
"""Weights of the largest tail that is worth it: to make one's session holds the interpreter's lock for some 30 ms here,
and longer ones run for so long that calls count for little."""
Tail = tuple[int, int]
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Fused:
    """A tail as one session, with what enters and leaves it."""

    tail: Tail
    session: Any
    specs: tuple[TensorSpec, ...]
    outputs: tuple[str]


class HotTails:
    """Runs what `chain` does, with the same results. Safe to call from several threads.

    A session for each block makes every cut possible, at the price of a call for each: the interpreter's lock is let
    go and waited for as often, and what one block leaves in the processor's layout is brought into the common one for
    the next. So a tail that at least `HOT_SHARE` of the last runs had becomes one session, made in a thread of its own
    while the chain goes on, on the weights of the chain's `pool`; runs that are expected count as well. It is dropped
    when the mix changes, and not made at all where the weights that it cannot share take too much memory.
    """

    def __init__(self, chain: ChainExecutor, pool: WeightPool) -> None:
        self._chain = chain
        self._pool = pool
        self._lock = threading.Lock()
        self._recent: deque[Tail] = deque(maxlen=RECENT)
        self._runs = 0
        self._due = 0
        self._wanted: Tail | None = None
        self._fused: _Fused | None = None
        self._refused: set[Tail] = set()
        self._maker = ThreadPoolExecutor(1, thread_name_prefix="hot-tails")

    @property
    def hot(self) -> Tail | None:
        """Exit and cut of the tail that is one session at present."""
        fused = self._fused
        return None if fused is None else fused.tail

    def layers(self, exit_number: int) -> int:
        """See `ChainExecutor`."""
        return self._chain.layers(exit_number)

    def boundary(self, exit_number: int, cut: int) -> tuple[TensorSpec, ...]:
        """See `ChainExecutor`."""
        return self._chain.boundary(exit_number, cut)

    def run_head(self, exit_number: int, cut: int, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `ChainExecutor`."""
        return self._chain.run_head(exit_number, cut, inputs)

    def run_tail(self, exit_number: int, cut: int, tensors: Mapping[str, Array]) -> Array:
        """See `ChainExecutor`."""
        self._note((exit_number, cut))
        return self.run_uncounted(exit_number, cut, tensors)

    def run_uncounted(self, exit_number: int, cut: int, tensors: Mapping[str, Array]) -> Array:
        """The same for what is no task, and makes no tail hot."""
        tail = exit_number, cut
        fused = self._fused
        if fused is None or fused.tail != tail:
            return self._chain.run_tail(exit_number, cut, tensors)
        return run_session(fused.session, given_tensors(tensors, fused.specs), fused.outputs)[0]

    def expect(self, exit_number: int, cut: int) -> None:
        """A task is going to have this tail: counts for `FORETOLD` runs."""
        for _ in range(FORETOLD):
            self._note((exit_number, cut))

    def settle(self) -> None:
        """Wait until a session that is being made is there, or is not to be."""
        self._maker.submit(lambda: None).result()

    def _note(self, tail: Tail) -> None:
        """Count a run, and see now and then whether another tail is hot."""
        with self._lock:
            self._recent.append(tail)
            self._runs += 1
            if self._runs % LOOK or len(self._recent) < RECENT:
                return
            wanted = self._wants()
            if wanted == self._wanted:
                return
            self._wanted, self._fused = wanted, None
            if wanted is not None:
                self._due = self._runs + PAUSE
                self._maker.submit(self._make, wanted)

    def _wants(self) -> Tail | None:
        """What is to be one session, by the last runs."""
        if self._wanted is not None and self._recent.count(self._wanted) >= COLD_SHARE * RECENT:
            return self._wanted
        hottest, count = Counter(self._recent).most_common(1)[0]
        hot = count >= HOT_SHARE * RECENT and self._runs >= self._due and self._is_fusible(hottest)
        return hottest if hot else None

    def _is_fusible(self, tail: Tail) -> bool:
        model = self._chain.model
        exit_number, cut = tail
        blocks = sum(len(layer.blocks) for layer in model.exit(exit_number).layers[cut:])
        return blocks > 1 and tail not in self._refused

    def _make(self, tail: Tail) -> None:
        """Make the session of a tail, in the thread that is there for that."""
        try:
            fused = self._fuse(tail)
        except OfframpError as error:
            _LOG.warning("exit %d behind cut %d stays a chain of sessions: %s", *tail, error)
            fused = None
        except Exception:  # noqa: BLE001 - the chain does without it
            _LOG.exception("exit %d behind cut %d stays a chain of sessions", *tail)
            fused = None
        with self._lock:
            if fused is None:
                self._refused.add(tail)
            elif self._wanted == tail:
                self._fused = fused

    def _fuse(self, tail: Tail) -> _Fused | None:
        """The tail as one session; None if that would take too much memory. Raises OfframpError."""
        model = self._chain.model
        block = model.tail(*tail)
        name = f"exit {tail[0]} behind cut {tail[1]}"
        if (elements := sum(map(model.graph.weight_elements, block.nodes))) > LARGEST_ELEMENTS:
            _LOG.info("%s stays a chain of sessions: it has %d weights", name, elements)
            return None
        writer = BlockWriter(model.graph, model.graph.source.load())
        most = max(ALWAYS_BYTES, MOST_MEMORY * sum(weight.ByteSize() for weight in writer.initializers))
        proto = writer.write(block)
        # First by what it will be at least, so that it is not made in vain; then by what it is.
        takes = packed_bytes(proto)
        if takes <= most:
            session, takes = self._pool.session(proto, name, self._chain.threads, adopt=False)
            if takes <= most:
                _LOG.info("%s is one session from now on", name)
                return _Fused(tail, session, model.boundary(*tail), (model.exit(tail[0]).output,))
        _LOG.info("%s stays a chain of sessions: %d more bytes of weights", name, takes)
        return None
