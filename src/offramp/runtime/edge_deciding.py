"""What the edge decides of tasks, with the policy that was made for the devices that are connected."""

from __future__ import annotations

from offramp.edge_queue import EdgeQueue
from offramp.observation import Observation
from offramp.policies import Policy
from offramp.policies.base import Varying
from offramp.policies.greedy import EdgeOnly
from offramp.runtime.client_protocol import Offer
from offramp.runtime.edge_job import Action, Counts, Foresee, Remake, Say, Work
from offramp.runtime.edge_queue import WorkQueue
from offramp.runtime.edge_sessions import Session, Sessions
from offramp.runtime.forecast import Forecast
from offramp.runtime.foresight import Foresight
from offramp.runtime.protocol import Announce, CodedUpload, Refusal, Upload, Verdict, fits
from offramp.task import UNCODED, Decision


class Deciding:
    """Verdicts, and decisions that stand; `interim` decides while the policy is being made.

    `draining`: everything is turned away.
    """

    def __init__(
        self,
        forecast: Forecast,
        interim: Policy,
        sessions: Sessions,
        queue: WorkQueue,
        counts: Counts,
        actions: list[Action],
    ) -> None:
        self._forecast = forecast
        self._interim = interim
        self._sessions = sessions
        self._queue = queue
        self._counts = counts
        self._actions = actions
        self._foresight = Foresight(forecast)
        self._policy: Policy | None = None
        self._version = 0
        self.draining = False

    @property
    def idle(self) -> bool:
        """Whether nothing is decided, waiting or running."""
        return self._queue.idle and not any(session.expected for session in self._sessions)

    def announced(self, session: Session, announce: Announce, now_s: float) -> None:
        """Decide a task that is announced, and say so."""
        self.at_work(session, now_s)
        calm = self.idle and announce.device_free_in_s == 0 and announce.link_free_in_s == 0
        decided: Decision | Refusal | None = self._refuse(session, announce)
        if decided is None:
            observation = self._forecast.observe(session.peer, announce, self._queued(now_s), now_s)
            decided = self._decide(announce, observation)
        else:
            session.peer.report(announce, now_s)
        if isinstance(decided, Refusal):
            rate = session.peer.link.bandwidth_bytes_per_s
            verdict = Verdict(announce.sequence, 0, 0, UNCODED, decided, 0.0, 0.0, 0.0, 0.0, rate)
        else:
            verdict = self._accept(session, announce, observation, decided)
        session.peer.verdicts += 1
        self._actions.append(Say(session.token, verdict))
        if calm and isinstance(decided, Decision):
            kind = announce.size, announce.budget_s
            self._settle(session, kind, observation, decided, now_s)

    def offered(self, session: Session, offer: Offer, now_s: float) -> tuple[Decision, float] | Refusal:
        """What is to be done with a task that came with its input, and how long the edge takes; or why nothing is."""
        self.at_work(session, now_s)
        if (refused := self._refuse(session, offer)) is not None:
            return refused
        observation = self._forecast.observe_offer(session.peer, offer, self._queued(now_s), now_s)
        decided = self._decide(offer, observation)
        if isinstance(decided, Refusal):
            return decided
        options = observation.options
        return decided, float(options.tail_s[options.row_of(decided)])

    def begun(
        self, session: Session, upload: Upload | CodedUpload, decision: Decision, now_s: float
    ) -> float | Refusal:
        """Take a task whose device went by what stands: how long the edge takes for it, or why it is not taken."""
        self.at_work(session, now_s)
        self._counts.announced += 1
        reason = self._turned_away(session, upload)
        if reason is None and decision not in session.stood:
            reason = Refusal.UNKNOWN_TASK
        reason = Refusal.DRAINING if self.draining else reason
        if reason is not None:
            return self._refused(reason)
        self._count(decision)
        self._counts.unasked += 1
        return self._forecast.tail_s(decision, upload.size)

    def at_work(self, session: Session, now_s: float) -> None:
        """A device has a task."""
        self._tell(self._foresight.at_work(session.token, now_s))

    def check(self, session: Session) -> None:
        """Something is known anew of a device's link."""
        self._tell(self._foresight.check(session))

    def rest(self, session: Session) -> None:
        """A task of a device has been answered: there may be others to decide before they come."""
        self._actions.extend(self._foresight.rest(session))

    def foresee(self, asked: Foresee, now_s: float) -> None:
        """Decide a device's next task of a kind before it comes, unless there is something else to do by now."""
        session = self._sessions.get(asked.session)
        if session is None or self._policy is None or self.draining or not self.idle:
            return
        if isinstance(self._policy, Varying):
            return
        observation = self._forecast.foresee(
            session.peer, asked.size, asked.budget_s, self._queued(now_s), now_s
        )
        decision = self._policy.decide(observation)
        if decision.exit > 0:
            self._forecast.tail_s(decision, asked.size)  # so that it is known when the task is here
        self._settle(session, (asked.size, asked.budget_s), observation, decision, now_s)

    def wants_policy(self, version: int) -> bool:
        """Whether the system is still the one of that `Remake`."""
        return version == self._version

    def policy_made(self, version: int, policy: Policy) -> None:
        """A policy for a `Remake` is there; one for a system that has changed since is not used."""
        if self.wants_policy(version):
            self._policy = policy
            for session in self._sessions:
                self._actions.extend(self._foresight.lone(session))

    def remake(self) -> None:
        """The devices are others than the policy was made for."""
        self._version += 1
        self._policy = None
        self._tell(self._foresight.withdraw())
        system = self._forecast.system
        if system is not None:
            self._actions.append(Remake(self._version, system))

    def _settle(
        self,
        session: Session,
        kind: tuple[int, float],
        observation: Observation,
        decision: Decision,
        now_s: float,
    ) -> None:
        self._tell(self._foresight.settle(session, kind, observation, self._policy, decision, now_s))

    def _tell(self, says: list[Say]) -> None:
        self._actions.extend(say for say in says if say.session in self._sessions)

    def _queued(self, now_s: float) -> EdgeQueue:
        expected = (work for each in self._sessions for work in each.expected.values())
        return self._queue.forecast(expected, now_s)

    def _turned_away(self, session: Session, task: Announce | Offer | Upload | CodedUpload) -> Refusal | None:
        own = self._queue.waiting_of(session.token) + len(session.expected)
        return self._sessions.turn_away(session, task, own, self._queue.waiting)

    def _refused(self, reason: Refusal) -> Refusal:
        self._counts.turned_away[reason] = self._counts.turned_away.get(reason, 0) + 1
        return reason

    def _refuse(self, session: Session, task: Announce | Offer) -> Refusal | None:
        """Why a task is not even decided, which costs much more than to refuse it; counted as announced."""
        self._counts.announced += 1
        reason = Refusal.DRAINING if self.draining else self._turned_away(session, task)
        return None if reason is None else self._refused(reason)

    def _decide(self, task: Announce | Offer, observation: Observation) -> Decision | Refusal:
        """What is to be done with a task, or why nothing is; counted."""
        decision = (self._policy or self._interim).decide(observation)
        if decision.exit > 0 and decision.cut > 0 and isinstance(task, Offer):
            decision = EdgeOnly().decide(observation)  # nobody could compute its first layers
        if decision.exit == 0:
            return self._refused(Refusal.POLICY)
        self._count(decision)
        return decision

    def _count(self, decision: Decision) -> None:
        self._counts.decided += 1
        self._counts.chosen[decision] = self._counts.chosen.get(decision, 0) + 1

    def _accept(
        self, session: Session, announce: Announce, observation: Observation, decision: Decision
    ) -> Verdict:
        options, task = observation.options, observation.task
        row = options.row_of(decision)
        predicted = [fits(instant_s - task.arrival_s) for instant_s in observation.timeline_of(row)]
        self._forecast.commit(session.peer, observation, decision)
        if not options.local[row]:
            _, _, _, arrival_s = observation.network_arrivals()
            session.expected[announce.sequence] = Work(
                session.token,
                announce.sequence,
                decision,
                announce.size,
                float(options.tail_s[row]),
                float(arrival_s[row]),
                task.arrival_s + announce.budget_s,
            )
        told = (*predicted, session.peer.link.bandwidth_bytes_per_s)
        return Verdict(announce.sequence, decision.exit, decision.cut, decision.codec, None, *told)
