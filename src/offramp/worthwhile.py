"""Which codecs are worth a choice: those that no other one, or none, beats."""

from __future__ import annotations

from dataclasses import replace

from offramp.profile import CodedCut, ExitCoefficients
from offramp.task import UNCODED

SAME_ACCURACY = 5e-4
"""Accuracies that are nearer to each other than this are alike: ten thousand images tell no more apart."""
SAME_TIME = 0.15
"""So are times of codecs, relative: profiles on a host that others use tell no more apart."""


def worthwhile(exits: tuple[ExitCoefficients, ...]) -> tuple[ExitCoefficients, ...]:
    """Without codecs that another one, or none, beats at the same cut at all sizes >= 1.

    To beat is to need no more bytes and, by more than `SAME_TIME` and `SAME_ACCURACY`, neither more time on device
    and edge nor to lose more.
    """
    return tuple(replace(exit, codecs=_unbeaten(exit)) for exit in exits)


def _unbeaten(exit: ExitCoefficients) -> tuple[CodedCut, ...]:
    kept: list[CodedCut] = [
        CodedCut(cut, UNCODED, exit.accuracy, (0.0, 0.0), (0.0, 0.0), (float(slope), float(intercept)))
        for cut, (slope, intercept) in enumerate(exit.output_bytes)
    ]
    # Those with the fewest bytes come first, so that what leaves is always beaten by something that stays.
    for coded in sorted(exit.codecs, key=lambda one: (*_costs(one)[::-1], one.codec)):
        if not any(_beats(other, coded) for other in kept):
            kept.append(coded)
    return tuple(coded for coded in exit.codecs if coded in kept)


def _costs(coded: CodedCut) -> list[float]:
    """Times to encode and decode, and bytes: for one input, and for each one more."""
    lines = (coded.device_s, coded.edge_s, coded.output_bytes)
    return [cost for slope, intercept in lines for cost in (slope + intercept, slope)]


def _beats(coded: CodedCut, other: CodedCut) -> bool:
    if coded.cut != other.cut or coded.accuracy < other.accuracy - SAME_ACCURACY:
        return False
    slack = [1.0 + SAME_TIME] * 4 + [1.0] * 2
    return all(
        own <= share * its for own, its, share in zip(_costs(coded), _costs(other), slack, strict=True)
    )
