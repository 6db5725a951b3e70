"""What a policy is, and what it may know when it is made."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

import numpy as np

from offramp.equations import BoolArray, FloatArray
from offramp.observation import Observation, Timing
from offramp.options import OptionTable, System
from offramp.scenario import Scenario
from offramp.task import DROP, Decision


@dataclass(frozen=True, slots=True)
class Context:
    """What a policy is made from: never the tasks to come.

    Attributes:
        scenario: what the tasks are drawn from, where that is known; a policy that needs it and is not given it
            estimates from what it has seen.
        policy_file: a trained policy's file, where the user named one.
        adapt: whether a policy that plans for the traffic plans again when the tasks depart from what it took
            them to be; false to measure what that is worth.
    """

    system: System
    timing: Timing = "paper"
    scenario: Scenario | None = None
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    policy_file: Path | None = None
    adapt: bool = True


class Policy(Protocol):
    """Decides task by task, in order of arrival, in the simulator and in the runtime alike."""

    def decide(self, observation: Observation) -> Decision:
        """One of the observation's options, or DROP."""
        ...


class NamedPolicy(Policy, Protocol):
    """A policy that can be made from a context alone, and so chosen by its name."""

    @classmethod
    def create(cls, context: Context) -> Self:
        """Make the policy. Raises OfframpError if the context lacks what it needs."""
        ...


@runtime_checkable
class Live(Protocol):
    """A policy that works beside its decisions, or minds how long they take, once real devices wait for them."""

    def go_live(self, executor: Executor, clock: Callable[[], float]) -> None:
        """Called once before the first live decision: `executor` takes work beside them; `clock` gives seconds."""
        ...


@runtime_checkable
class Varying(Protocol):
    """A policy that may decide otherwise when it observes the same again; `varies` is why."""

    varies: str


@runtime_checkable
class Substituted(Protocol):
    """A policy that may hand its decisions to another; `notice` says why it has, and is None if it has not."""

    notice: str | None


def notice_of(policy: Policy) -> str | None:
    """Why something else decided in the policy's place, for the output to mention; None if nothing did."""
    return policy.notice if isinstance(policy, Substituted) else None


def choose(options: OptionTable, allowed: BoolArray, finish_s: FloatArray) -> Decision:
    """The allowed option with the greatest gain; among equals the one that finishes first; DROP if none is."""
    if not allowed.any():
        return DROP
    gain = np.where(allowed, options.gain, -np.inf)
    row = int(np.argmin(np.where(gain == gain.max(), finish_s, np.inf)))
    return options.decision(row)
