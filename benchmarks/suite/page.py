"""One JSON and one page with pictures from the kept results of all parts; nothing is measured."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from plant.report import Figure

from offramp.validation import write_atomically
from suite import pictures
from suite.parts import BENCHMARKS, PARTS, RESULTS, Part

REPOSITORY = BENCHMARKS.parent
JSON = RESULTS / "bench.json"
PAGE = REPOSITORY / "docs" / "benchmarks.md"
PICTURES = REPOSITORY / "docs" / "benchmarks"
DOCS = tuple(REPOSITORY / "docs" / name for name in ("capacity.md", "edge-scaling.md"))
"""Pages that hold tables of `results`, each between a comment that names it and one that ends it."""
TABLE = re.compile(r"(<!-- results/(\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
INCHES = (10.0, 4.2)
RELATIONS = {"<=": "≤", ">=": "≥", "==": "="}


def value(parts: Sequence[Part] = PARTS, results: Path = RESULTS) -> dict[str, Any]:
    """The JSON: each part's figures with their limits, and what they were made with."""
    return {
        "format": "offramp.benchmarks/1",
        "parts": {part.name: of_part(part, part.kept(results)) for part in parts},
    }


def of_part(part: Part, kept: list[dict[str, Any]] | None) -> dict[str, Any]:
    """One part; `held` is None where nothing is kept or nothing is asked."""
    figures = [] if kept is None else part.read(*kept)
    asked = [figure for figure in figures if figure.limit is not None]
    return {
        "title": part.title,
        "measured": part.measured,
        "commands": [f"python benchmarks/{command}" for command in part.commands],
        "minutes": part.minutes,
        "made_with": [] if kept is None else made_with(kept),
        "figures": [asdict(figure) | {"holds": figure.holds} for figure in figures],
        "held": all(figure.holds for figure in asked) if asked else None,
    }


def made_with(kept: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Machine and commit of each result, as far as it says them; once, where they are the same."""
    found: list[dict[str, Any]] = []
    for result in kept:
        made = result.get("made_with", {})
        host = made.get("host", {}) | result.get("host", {})
        told = {
            "processor": host.get("processor"),
            "machine": host.get("machine"),
            "cores": result.get("cores", host.get("cores")),
            "python": made.get("python", host.get("python")),
            "onnxruntime": made.get("packages", {}).get("onnxruntime"),
            "commit": made.get("commit"),
        }
        told = {name: each for name, each in told.items() if each is not None}
        if told and told not in found:
            found.append(told)
    return found


def markdown(found: dict[str, Any]) -> str:
    """The page."""
    lines = [
        "# Benchmarks",
        "",
        "Made by `python benchmarks/page.py` from the results in `benchmarks/results`; [bench.json]"
        "(../benchmarks/results/bench.json) has the same.",
        "`make bench` measures what has not been measured here yet or whose sources have changed;",
        "`python benchmarks/bench.py PART` does one part, `--again` what is kept as well; `--list` tells what",
        "there is. Ratios are of runs side by side; times are of the machine that is named.",
        "",
        "| part | asked | held | minutes |",
        "|---|---|---|---|",
    ]
    for name, part in found["parts"].items():
        asked = [figure for figure in part["figures"] if figure["limit"] is not None]
        held = sum(figure["holds"] for figure in asked)
        said = (
            f"{held} of {len(asked)}" if asked else ("told only" if part["figures"] else "not measured yet")
        )
        mark = {True: "all", False: "**no**", None: "–"}[part["held"]]
        lines.append(f"| [{part['title']}](#{name}) | {said} | {mark} | {part['minutes']:g} |")
    for name, part in found["parts"].items():
        lines += ["", f'<a id="{name}"></a>', "", f"## {part['title']}", "", part["measured"], ""]
        lines += ["```", *part["commands"], "```", ""]
        lines += section(name, part) if part["figures"] else ["Not measured yet."]
    return "\n".join(lines) + "\n"


def section(name: str, part: dict[str, Any]) -> list[str]:
    """Machine, picture and table of a part that was measured."""
    machines = ["; ".join(f"{key} {told}" for key, told in made.items()) for made in part["made_with"]]
    machine = " / ".join(machines) or "not told by this result"
    lines = [f"Machine: {machine}.", "", f"![{part['title']}](benchmarks/{name}.png)", ""]
    lines += ["| figure | measured | asked | |", "|---|---|---|---|"]
    for each in part["figures"]:
        figure = Figure(each["name"], each["value"], each["relation"], each["limit"])
        asked = "" if figure.limit is None else f"{RELATIONS[figure.relation]} {figure.limit:g}"
        held = "" if figure.limit is None else ("held" if figure.holds else "**not held**")
        name = figure.name.replace("|", "/")
        lines.append(f"| {name} | {figure.value:.4g} | {asked} | {held} |")
    return lines


def with_tables(text: str, results: Path = RESULTS) -> str:
    """A page with the tables of `results` that it names as they are now."""
    return TABLE.sub(lambda found: f"{found[1]}\n{(results / found[2]).read_text()}\n{found[3]}", text)


def digest(part: Part, results: Path = RESULTS) -> str:
    """Of what a picture shows: the results, and the code that draws them."""
    found = hashlib.sha256(Path(pictures.__file__).read_bytes())
    for name in part.results:
        found.update((results / name).read_bytes())
    return found.hexdigest()


def draw(part: Part, kept: list[dict[str, Any]], source: str) -> bytes:
    """A part's picture as PNG, which holds the digest of its source."""
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context({"font.size": 8}):
        figure = Canvas(figsize=INCHES, layout="constrained")
        part.draw(figure, *kept)
        written = io.BytesIO()
        figure.savefig(written, format="png", dpi=110, metadata={"Source": source})
    return written.getvalue()


def write(
    parts: Sequence[Part] = PARTS,
    results: Path = RESULTS,
    kept_as: Path = JSON,
    page: Path = PAGE,
    folder: Path = PICTURES,
) -> None:
    """JSON, page, and the pictures whose results or drawing have changed."""
    found = value(parts, results)
    for part in parts:
        kept = part.kept(results)
        picture = folder / f"{part.name}.png"
        if kept is None or not found["parts"][part.name]["figures"]:
            continue
        source = digest(part, results)
        if not picture.exists() or source.encode() not in picture.read_bytes():
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(picture, draw(part, kept, source))
    write_atomically(kept_as, json.dumps(found, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
    write_atomically(page, markdown(found))


def write_tables() -> None:
    """The kept tables again into the pages that show them."""
    for path in DOCS:
        write_atomically(path, with_tables(path.read_text(encoding="utf-8")))
