"""What an edge lets a device do without asking, so that a task need not wait for its decision.

While one device alone gives the edge work, a task that finds device, link and edge idle meets a situation that was
known before it came. So its decision travels ahead of it, with the one before or behind the answer before, and stands
for tasks of that size and budget: see `protocol.Standing`. Every task that goes by it has it made anew for the next.
Where a device has said which kinds of tasks it is going to have, not even the first of a kind need ask.

As soon as another device has a task, or what a decision went by has changed much, it stands no more. On a link that is
not what it was declared to be nothing stands: what is known of it changes with every upload, which takes longer than to
ask.
"""

from __future__ import annotations

from offramp.observation import Observation
from offramp.policies import Policy
from offramp.policies.base import Varying
from offramp.runtime.edge_job import Foresee, Say
from offramp.runtime.edge_sessions import Session
from offramp.runtime.forecast import NOTABLE_DRIFT, Forecast
from offramp.runtime.protocol import MAX_KINDS, Reconsider, Standing
from offramp.task import Decision

ALONE_S = 1.0
"""For how long no other device must have had a task, where there are others."""
MOST_STOOD = 256


class Foresight:
    """The decisions that stand. Methods give what is to be said to devices because of them."""

    def __init__(self, forecast: Forecast) -> None:
        self._forecast = forecast
        self._token: bytes | None = None
        self._since_s = 0.0
        self._kinds: set[tuple[int, float]] = set()
        self._untried: tuple[tuple[int, float], ...] = ()
        self._edge_factor = forecast.edge_factor

    def at_work(self, token: bytes, now_s: float) -> list[Say]:
        """A device has a task: what stands for another stands no more."""
        if token == self._token:
            return []
        say = self.withdraw()
        self._token, self._since_s = token, now_s
        return say

    def lone(self, session: Session) -> list[Foresee]:
        """What to decide before it comes for a device that may be the only one."""
        system = self._forecast.system
        if system is None or system.devices > 1 or not session.kinds:
            return []
        if session.token != self._token:
            self._kinds.clear()
            self._token = session.token
        self._untried = session.kinds
        return self.rest(session)

    def rest(self, session: Session) -> list[Foresee]:
        """What else to decide for a device for which decisions have begun to stand: all that it is going to have."""
        if session.token != self._token:
            return []
        untried, self._untried = self._untried, ()
        return [Foresee(session.token, *kind) for kind in untried if kind not in self._kinds]

    def withdraw(self) -> list[Say]:
        """Nothing stands any more."""
        if self._token is None or not self._kinds:
            return []
        self._kinds.clear()
        return [Say(self._token, Reconsider())]

    def check(self, session: Session) -> list[Say]:
        """Nothing stands any more if the edge's speed is not what it was, or the link not what it should be."""
        if session.token != self._token or not self._kinds:
            return []
        drift = abs(self._forecast.edge_factor / self._edge_factor - 1.0)
        held = drift <= NOTABLE_DRIFT and session.peer.link.belief.certain
        return [] if held else self.withdraw()

    def _alone(self, now_s: float) -> bool:
        system = self._forecast.system
        return (system is not None and system.devices == 1) or now_s - self._since_s >= ALONE_S

    def settle(
        self,
        session: Session,
        kind: tuple[int, float],
        observation: Observation,
        policy: Policy | None,
        decision: Decision,
        now_s: float,
    ) -> list[Say]:
        """Let what `policy` has decided stand for tasks of a size and budget, where it would decide so again.

        The observation must be of a task that finds everything idle.
        """
        if session.token != self._token or not self._alone(now_s):
            return []
        if policy is None or isinstance(policy, Varying) or not session.peer.link.belief.certain:
            return self.withdraw()
        options = observation.options
        row = options.row_of(decision) if decision.exit > 0 else None
        if row is None or options.local[row]:
            # The edge has no part in such a task, and would never hear that it has become otherwise.
            return self.withdraw() if kind in self._kinds else []
        say = self.check(session)
        if len(self._kinds) == MAX_KINDS and kind not in self._kinds:
            say += self.withdraw()
        if not self._kinds:
            self._edge_factor = self._forecast.edge_factor
            self._untried = session.kinds
        self._kinds.add(kind)
        if len(session.stood) == MOST_STOOD:
            session.stood.clear()
        session.stood.add(decision)
        return [*say, Say(session.token, _standing(kind, observation, row, session))]


def _standing(kind: tuple[int, float], observation: Observation, row: int, session: Session) -> Standing:
    decision = observation.options.decision(row)
    begin_s, send_s, edge_start_s, finish_s = observation.timeline_of(row)
    return Standing(
        *kind,
        decision.exit,
        decision.cut,
        decision.codec,
        max(0.0, send_s - begin_s),
        max(0.0, edge_start_s - begin_s),
        max(0.0, finish_s - begin_s),
        session.peer.link.bandwidth_bytes_per_s,
    )
