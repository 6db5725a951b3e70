"""`train-policy`: runs a learner to its end, keeps what it has when it is broken off, and writes the policy file."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from offramp.errors import OfframpError
from offramp.instance import system_of
from offramp.policies.ddqn_paper_learning import PaperLearner, PaperSettings
from offramp.policies.network_file import (
    Algorithm,
    Arrays,
    Target,
    checkpoint_bytes,
    parse_checkpoint,
)
from offramp.profile import ExitCoefficients
from offramp.scenario import Scenario
from offramp.training.ddqn_learning import FamilyLearner, FamilySettings
from offramp.validation import write_atomically

Report = Callable[[int, float], None]
"""Called with the tasks played so far and the running mean gain of a task."""

KEEP_EVERY_S = 20.0
"""Seconds between two checkpoints of a run."""

_RECENT = 0.9


class Learner(Protocol):
    """A training run in pieces. The same seed gives the same file, in one go or resumed."""

    @property
    def identity(self) -> str:
        """Which run this is."""
        ...

    @property
    def steps(self) -> int:
        """Tasks that the whole run plays."""
        ...

    @property
    def done(self) -> int:
        """Tasks played so far."""
        ...

    @property
    def finished(self) -> bool:
        """Whether all are played."""
        ...

    def advance(self) -> float:
        """One piece; gives the mean gain of its tasks."""
        ...

    def checkpoint(self) -> Arrays:
        """Everything that the run needs to go on."""
        ...

    def restore(self, arrays: Arrays) -> None:
        """Go on from a checkpoint."""
        ...

    def to_bytes(self) -> bytes:
        """The policy file."""
        ...


def make_learner(
    algorithm: Algorithm,
    scenario: Scenario,
    exits: tuple[ExitCoefficients, ...],
    seed: int,
    *,
    target: Target = "double",
    steps: int | None = None,
) -> Learner:
    """The run of an algorithm; `steps` None takes its own number. OfframpError if the scenario does not do."""
    if algorithm == "ddqn-paper":
        paper = PaperSettings(target=target)
        paper = paper if steps is None else replace(paper, steps=steps)
        return PaperLearner(system_of(scenario, exits), scenario, paper, seed)
    family = FamilySettings(target=target)
    return FamilyLearner(scenario, exits, family if steps is None else replace(family, steps=steps), seed)


def checkpoint_path(output: Path) -> Path:
    """Where a run keeps what it has: beside its policy file, until that is written."""
    return output.with_name(output.name + ".partial")


def prepare(learner: Learner, output: Path, resume: bool) -> None:
    """Refuse what cannot work, before anything is shown or run; `resume` takes up the checkpoint beside `output`.

    OfframpError if the folder is missing, or if there is no checkpoint, or one that is damaged or of another run.
    """
    if not output.parent.is_dir():
        raise OfframpError(
            "output", str(output), "cannot be written (no such folder)", "give a folder that exists"
        )
    if not resume:
        return
    kept = checkpoint_path(output)
    if not kept.exists():
        raise OfframpError("resume", str(kept), "there is no checkpoint", "start without --resume")
    learner.restore(parse_checkpoint(kept.read_bytes(), learner.identity, str(kept)))


def train(
    learner: Learner,
    output: Path,
    *,
    report: Report = lambda done, gain: None,
    clock: Callable[[], float] = time.monotonic,
) -> float:
    """Run a prepared learner to its end and write its policy file; gives the running mean gain.

    Broken off (KeyboardInterrupt), it leaves a checkpoint. OfframpError if the file cannot be written.
    """
    kept = checkpoint_path(output)
    gain, saved_s = None, clock()
    try:
        while not learner.finished:
            latest = learner.advance()
            gain = latest if gain is None else _RECENT * gain + (1.0 - _RECENT) * latest
            report(learner.done, gain)
            if clock() - saved_s > KEEP_EVERY_S:
                write_atomically(kept, checkpoint_bytes(learner.checkpoint(), learner.identity))
                saved_s = clock()
    except KeyboardInterrupt:
        write_atomically(kept, checkpoint_bytes(learner.checkpoint(), learner.identity))
        raise
    write_atomically(output, learner.to_bytes())
    kept.unlink(missing_ok=True)
    return 0.0 if gain is None else gain
