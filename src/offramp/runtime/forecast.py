"""What the edge knows of the devices and of itself, as the `network` timing model that every policy decides on."""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from offramp import equations
from offramp.edge_queue import Batching, EdgeJob, EdgeQueue
from offramp.link_estimate import LinkEstimator
from offramp.observation import Backlog, Observation
from offramp.options import Gain, NetworkTerms, System, batch_costs
from offramp.profile import ExitCoefficients
from offramp.runtime.client_protocol import Offer
from offramp.runtime.link_view import LinkView
from offramp.runtime.protocol import Announce, Begun, Hello
from offramp.task import Decision, Task

SMOOTHING = 0.1
"""Weight of a new measurement in a running mean."""
NOTABLE_DRIFT = 0.25
"""Relative change of a speed since the start that is worth a line in the log."""
JUDGED_S = 0.005
"""Work of less than this says little of the edge's speed: it is added up before it is compared."""
UNCONFIRMED = 256
"""Decisions that a device may not have counted in yet: about what it announces within a round trip."""
TOLERATED_DRIFT = 0.05
"""Relative error of a speed at which predictions take up the measured one."""


@dataclass(slots=True)
class RunningSpeed:
    """A factor on predicted durations that follows what is measured, but not every wobble of it."""

    factor: float
    _mean: float = field(default=0.0, init=False)
    _first: float = field(default=0.0, init=False)
    _drifted: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._mean = self._first = self.factor

    @property
    def drift(self) -> float:
        """How much slower than at the start: 0.2 for a fifth slower."""
        return self.factor / self._first - 1.0

    def news(self) -> float | None:
        """The drift, once when it comes to exceed `NOTABLE_DRIFT`, and once when it is well below again."""
        notable = abs(self.drift) > NOTABLE_DRIFT * (0.5 if self._drifted else 1.0)
        if notable == self._drifted:
            return None
        self._drifted = notable
        return self.drift

    def measured(self, predicted_s: float, measured_s: float) -> bool:
        """Take in a duration that `factor` = 1 predicts as `predicted_s`; whether `factor` has changed."""
        if predicted_s <= 0 or measured_s <= 0:
            return False
        # One stall of the machine must not look like a slow processor.
        ratio = min(max(measured_s / predicted_s, self._mean / 3), self._mean * 3)
        self._mean += SMOOTHING * (ratio - self._mean)
        if abs(self._mean - self.factor) <= TOLERATED_DRIFT * self.factor:
            return False
        self.factor = self._mean
        return True


@dataclass(frozen=True, slots=True)
class Placed:
    """A decision that the device has not yet counted into what it reports of itself."""

    verdict: int
    ready_s: float
    head_s: float
    upload_s: float
    local: bool
    deadline_s: float


@dataclass(slots=True)
class Peer:
    """A connected device as the edge sees it; instants on the edge's clock."""

    name: str
    slowdown: float
    declared_bytes_per_s: float
    link: LinkView
    decision_s: float
    device_free_s: float = -np.inf
    link_free_s: float = -np.inf
    margin: float = 0.0
    verdicts: int = 0
    unconfirmed: deque[Placed] = field(default_factory=lambda: deque(maxlen=UNCONFIRMED))

    def report(self, announce: Announce, now_s: float) -> None:
        """Take the device's word for how far behind it is, then add the decisions that it has not seen."""
        self.slowdown, self.margin = announce.slowdown, announce.margin
        if announce.round_trip_s > 0:
            self.decision_s += SMOOTHING * (announce.round_trip_s - self.decision_s)
        while self.unconfirmed and self.unconfirmed[0].verdict < announce.decided:
            self.unconfirmed.popleft()
        # What it says of itself was true when it was sent, about half a round trip ago.
        sent_s = now_s - self.decision_s / 2
        self.device_free_s = sent_s + announce.device_free_in_s
        self.link.believe(now_s)
        self.link_free_s = max(sent_s + announce.link_free_in_s, self.link.free_s(now_s))
        for placed in self.unconfirmed:
            self._occupy(placed)

    def acts(self, begun: Begun) -> None:
        """Take the device's word for its speed, which comes with a task that was not announced."""
        self.slowdown, self.margin = begun.slowdown, begun.margin

    def place(self, observation: Observation, row: int) -> None:
        """Count a decision in, until the device reports it."""
        options = observation.options
        placed = Placed(
            self.verdicts,
            observation.ready_s,
            float(options.head_s[row]),
            float(options.upload_s[row]),
            bool(options.local[row]),
            observation.task.deadline_s,
        )
        self.unconfirmed.append(placed)
        self._occupy(placed)

    def _occupy(self, placed: Placed) -> None:
        _, send_s, sent_s, arrival_s = equations.network_arrival(
            placed.ready_s,
            self.device_free_s,
            self.link_free_s,
            self.link.belief.delay_s,
            np.asarray(placed.head_s),
            np.asarray(placed.upload_s),
        )
        self.device_free_s = float(send_s)
        if not placed.local and equations.on_time(float(arrival_s), placed.deadline_s):
            self.link_free_s = float(sent_s)


class Forecast:
    """The connected devices and the edge's speed as a `System`, and observations for the policy."""

    def __init__(
        self,
        exits: Sequence[ExitCoefficients],
        gain: Gain,
        network: NetworkTerms,
        edge_factor: float = 1.0,
    ) -> None:
        self._exits = tuple(exits)
        self._gain = gain
        self._network = network
        self.speed = RunningSpeed(edge_factor)
        self._peers: dict[str, Peer] = {}
        self._system: System | None = None
        self._unjudged_s = 0.0, 0.0
        self._taking_s = lru_cache(maxsize=65536)(self._batch_s)

    @property
    def gain(self) -> Gain:
        """Parameters of Eq. 1."""
        return self._gain

    @property
    def codecs(self) -> frozenset[str]:
        """Codecs that a decision may name."""
        return frozenset(coded.codec for exit in self._exits for coded in exit.codecs)

    def join(self, hello: Hello) -> Peer:
        """A device connects."""
        self._system = None
        peer = Peer(
            hello.device,
            hello.slowdown,
            hello.bandwidth_bytes_per_s,
            LinkView(LinkEstimator(hello.bandwidth_bytes_per_s, hello.link_delay_s, hello.steady)),
            self._network.decision_s,
        )
        self._peers[hello.device] = peer
        return peer

    def leave(self, name: str) -> None:
        """A device is gone."""
        self._system = None
        del self._peers[name]

    @property
    def system(self) -> System | None:
        """The devices in the order in which they joined, and the edge; None while there is no device."""
        if not self._peers:
            return None
        peers = self._peers.values()
        slowdowns = tuple(peer.slowdown for peer in peers)
        bandwidths = tuple(peer.declared_bytes_per_s for peer in peers)
        known = self._system
        if known is None or known.device_slowdown != slowdowns or known.bandwidth_bytes_per_s != bandwidths:
            factor = self.speed.factor
            exits = tuple(exit.with_edge_factor(factor) for exit in self._exits)
            self._system = System(exits, slowdowns, bandwidths, self._gain, self._network)
        return self._system

    def observe(self, peer: Peer, announce: Announce, queue: EdgeQueue, now_s: float) -> Observation:
        """What the policy may see of a task that `peer` announces now, which the edge's `queue` awaits.

        The task's budget is shorter by the margin that the device asks for.
        """
        peer.report(announce, now_s)
        index = list(self._peers).index(peer.name)
        # So was what is left of the budget.
        deadline_s = now_s + announce.remaining_s - peer.decision_s / 2
        planned_s = announce.budget_s * (1.0 - announce.margin)
        task = Task(deadline_s - announce.budget_s, announce.size, planned_s, index)
        network = dataclasses.replace(
            self._network, decision_s=peer.decision_s, link_delay_s=peer.link.belief.delay_s
        )
        observed = self._observed(task, queue, now_s, network, peer.link.bandwidth_bytes_per_s)
        return observed.weighed(peer.link.belief)

    def foresee(self, peer: Peer, size: int, budget_s: float, queue: EdgeQueue, now_s: float) -> Observation:
        """The same of a task that may come next: nobody has to be asked, and its device and link are idle."""
        peer.link.believe(now_s)
        peer.device_free_s = peer.link_free_s = -math.inf
        index = list(self._peers).index(peer.name)
        task = Task(now_s, size, budget_s * (1.0 - peer.margin), index)
        network = dataclasses.replace(self._network, decision_s=0.0, link_delay_s=peer.link.belief.delay_s)
        observed = self._observed(task, queue, now_s, network, peer.link.bandwidth_bytes_per_s)
        return observed.weighed(peer.link.belief)

    def tail_s(self, decision: Decision, size: int) -> float:
        """Seconds that the edge takes at present for a task's layers behind its cut, and to decode what crosses."""
        return self.edge_factor * self.batch_s([(decision, size)])

    def observe_offer(self, peer: Peer, offer: Offer, queue: EdgeQueue, now_s: float) -> Observation:
        """The same of a task that is here with its input: nothing has to be said, and nothing to cross, before it."""
        index = list(self._peers).index(peer.name)
        planned_s = offer.budget_s * (1.0 - offer.margin)
        task = Task(now_s + offer.remaining_s - offer.budget_s, offer.size, planned_s, index)
        network = dataclasses.replace(self._network, decision_s=0.0, link_delay_s=0.0)
        return self._observed(task, queue, now_s, network, math.inf)

    def _observed(
        self, task: Task, queue: EdgeQueue, now_s: float, network: NetworkTerms, bandwidth_bytes_per_s: float
    ) -> Observation:
        system = self.system
        assert system is not None
        peers = self._peers.values()
        backlog = Backlog(
            np.array([each.device_free_s for each in peers]),
            np.array([each.link_free_s for each in peers]),
            *queue.forecast(),
        )
        options = system.options_at(task.device, task.size, bandwidth_bytes_per_s)
        return Observation(task, now_s, options, backlog, "network", network)

    def commit(self, peer: Peer, observation: Observation, decision: Decision) -> None:
        """Count in what the policy chose. ValueError if it is none of the options."""
        peer.place(observation, observation.options.row_of(decision))

    def computed(self, predicted_s: float, measured_s: float) -> None:
        """The edge has computed what an edge of factor 1 computes in `predicted_s`; short work is judged together."""
        self._unjudged_s = self._unjudged_s[0] + predicted_s, self._unjudged_s[1] + measured_s
        if self._unjudged_s[0] < JUDGED_S:
            return
        if self.speed.measured(*self._unjudged_s):
            self._system = None
        self._unjudged_s = 0.0, 0.0

    @property
    def edge_factor(self) -> float:
        """How much slower than its profile the edge computes at present."""
        return self.speed.factor

    @property
    def network(self) -> NetworkTerms:
        """Terms of the timing model, the edge's workers and batches among them."""
        return self._network

    def batching(self) -> Batching:
        """What the edge may run together, timed at its present speed."""

        def duration(jobs: Sequence[EdgeJob]) -> float:
            return self.edge_factor * self.batch_s([(job.decision, job.size) for job in jobs])

        return Batching(self._network.max_batch, self._network.answer_s, duration)

    def batch_s(self, tasks: Sequence[tuple[Decision, int]]) -> float:
        """Seconds that an edge of factor 1 takes for decided tasks that it runs together, or for one."""
        first, _ = tasks[0]
        return self._taking_s(first.exit, first.cut, tuple((made.codec, size) for made, size in tasks))

    def _batch_s(self, exit: int, cut: int, parts: tuple[tuple[str, int], ...]) -> float:
        return batch_costs(self._exits[exit - 1], cut, parts)
