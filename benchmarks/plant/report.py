"""What a scenario showed: figures with their limits, and what did not add up."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

_HOLDS = {"<=": operator.le, ">=": operator.ge, "==": operator.eq}


class Skipped(Exception):  # noqa: N818 - not an error
    """This scenario cannot be run here, and why."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value, and the limit that it is held against; without one it is only told."""

    name: str
    value: float
    relation: str = ""
    limit: float | None = None

    @property
    def holds(self) -> bool:
        """Whether it is within its limit."""
        return self.limit is None or bool(_HOLDS[self.relation](self.value, self.limit))

    def __str__(self) -> str:
        limit = "" if self.limit is None else f" ({self.relation} {self.limit:g})"
        return f"{self.name} {self.value:.4g}{limit}{'' if self.holds else ' FAILS'}"


@dataclass(slots=True)
class Report:
    """Of one scenario."""

    scenario: str
    figures: list[Figure] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    skipped: str = ""
    took_s: float = 0.0

    def add(self, name: str, value: float, relation: str = "", limit: float | None = None) -> None:
        """A figure."""
        self.figures.append(Figure(name, round(float(value), 4), relation, limit))

    @property
    def passed(self) -> bool:
        """Whether every figure is within its limit and everything adds up."""
        return not self.complaints and all(figure.holds for figure in self.figures)

    @classmethod
    def of(cls, value: dict[str, Any]) -> Report:
        """The reverse of `dataclasses.asdict`."""
        figures = [Figure(**figure) for figure in value["figures"]]
        return cls(value["scenario"], figures, value["complaints"], value["skipped"], value["took_s"])


def table(reports: Sequence[Report]) -> str:
    """As a Markdown table."""
    lines = ["| scenario | figure | measured | limit | |", "|---|---|---|---|---|"]
    for report in reports:
        if report.skipped:
            lines.append(f"| {report.scenario} | not run: {report.skipped} | | | |")
        for figure in report.figures:
            limit = "" if figure.limit is None else f"{figure.relation} {figure.limit:g}"
            held = "" if figure.limit is None else ("holds" if figure.holds else "FAILS")
            lines.append(f"| {report.scenario} | {figure.name} | {figure.value:.4g} | {limit} | {held} |")
        lines += [
            f"| {report.scenario} | {what.replace('|', '/')} | | | FAILS |" for what in report.complaints
        ]
    return "\n".join(lines)
