"""Figures as data: finished cells are kept, one run's numbers are the next one's, and intervals are Student's."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from offramp.errors import OfframpError
from offramp.experiments.cells import Cell, NetworkExits, run_cell
from offramp.experiments.engine import LocalEngine, run_kept
from offramp.experiments.figures import check_number, gain_data, run_sweep, save_figure
from offramp.experiments.statistics import mean_interval
from offramp.scenario import Scenario

SMALL = Scenario(tasks=15)


class InThisProcess:
    """Runs cells one after another and keeps which; can be stopped after some."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.ran: list[Any] = []
        self._stop_after = stop_after

    def run(self, work: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        for item in items:
            if len(self.ran) == self._stop_after:
                raise KeyboardInterrupt
            self.ran.append(item)
            yield item, work(item)


def sweep(engine: Any, exits: NetworkExits, folder: Path) -> dict[str, Any]:
    steps = list(run_sweep(6, SMALL, exits, ["myopic"], "network", 2, engine, folder))
    assert all(step is None for step in steps[:-1])
    data = steps[-1]
    assert data is not None
    return data


def test_an_interrupted_sweep_goes_on_where_it_stopped(four_exits: NetworkExits, tmp_path: Path) -> None:
    whole = sweep(InThisProcess(), four_exits, tmp_path / "whole")
    stopped, resumed = InThisProcess(stop_after=4), InThisProcess()
    with pytest.raises(KeyboardInterrupt):
        sweep(stopped, four_exits, tmp_path / "parts")
    again = sweep(resumed, four_exits, tmp_path / "parts")
    assert len(stopped.ran) == 4
    assert len(stopped.ran) + len(resumed.ran) == 10
    assert not set(stopped.ran) & set(resumed.ran)
    assert again == whole


def test_a_damaged_result_is_run_again(four_exits: NetworkExits, tmp_path: Path) -> None:
    cells = [Cell(SMALL, "myopic", "paper", (0, 1))]
    ((_, first),) = run_kept(cells, four_exits, InThisProcess(), tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_text(file.read_text()[:20])
    engine = InThisProcess()
    ((_, second),) = run_kept(cells, four_exits, engine, tmp_path)
    assert engine.ran == cells
    assert second == first


def test_processes_give_what_one_process_gives(four_exits: NetworkExits) -> None:
    cells = [Cell(SMALL, name, "paper", (0, 1)) for name in ("random", "greedy", "myopic")]
    results = dict(LocalEngine(2).run(partial(run_cell, exits=four_exits), cells))
    assert results == {cell: run_cell(cell, four_exits) for cell in cells}


HELD = """
import os
import threading

from offramp.experiments.engine import LocalEngine

def hold(item):
    # Whole, where `print` may mix the lines of two processes.
    os.write(1, b"held\\n")
    threading.Event().wait()

if __name__ == "__main__":
    list(LocalEngine(2).run(hold, [0, 1]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_a_parent_that_is_killed(number: int, tmp_path: Path) -> None:
    (tmp_path / "held.py").write_text(HELD)
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "held.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        assert parent.stdout is not None
        assert [parent.stdout.readline() for _ in range(2)] == ["held\n"] * 2
        parent.send_signal(number)
        # Whatever is left of them holds standard output open.
        parent.communicate(timeout=10)
        assert parent.returncode == -number
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)
        parent.communicate()


def test_a_key_depends_on_coefficients_seeds_and_scenario(four_exits: NetworkExits) -> None:
    cell = Cell(SMALL, "myopic", "paper", (0, 1))
    others = [
        Cell(SMALL.changed(k=4), "myopic", "paper", (0, 1)),
        Cell(SMALL, "greedy", "paper", (0, 1)),
        Cell(SMALL, "myopic", "network", (0, 1)),
        Cell(SMALL, "myopic", "paper", (0, 2)),
    ]
    keys = {cell.key(four_exits), cell.key(four_exits[:-1]), *(other.key(four_exits) for other in others)}
    assert len(keys) == 6


def test_pictures_are_drawn_from_data_alike(four_exits: NetworkExits, tmp_path: Path) -> None:
    data = sweep(InThisProcess(), four_exits, tmp_path)
    first = [path.read_bytes() for path in save_figure(data, tmp_path / "a")]
    second = [path.read_bytes() for path in save_figure(data, tmp_path / "b")]
    assert first == second
    file = json.loads(first[0])
    assert file["made_with"].keys() >= {"commit", "packages", "host"}
    assert [point["x"] for point in file["series"]["myopic"]] == [0.05, 0.1, 0.2, 0.3, 0.5]
    assert first[1].startswith(b"<?xml")
    heads, _, *rows = first[2].decode().splitlines()
    assert heads.endswith("| 0.05 | 0.1 | 0.2 | 0.3 | 0.5 |")
    assert [row.split(" | ")[0].strip("| ") for row in rows] == list(file["series"])
    point = file["series"]["myopic"][-1]
    (shown,) = (row for row in rows if row.startswith("| myopic |"))
    assert shown.endswith(f"| {point['gain']:.1f} ± {point['half_width']:.1f} |")


def test_figure_3_is_equation_1(four_exits: NetworkExits, tmp_path: Path) -> None:
    data = gain_data(SMALL, four_exits)
    assert data["exits"]["gain"][0] == 0
    assert data["exits"]["gain"][1] == pytest.approx(1.05)
    assert data["curve"]["gain"][0] == pytest.approx(1.05)
    assert len(save_figure(data, tmp_path)) == 2


def test_only_the_papers_figures_are_known() -> None:
    with pytest.raises(OfframpError, match="figure = 4"):
        check_number(4)


def test_the_interval_is_students() -> None:
    values = np.random.default_rng(0).normal(10, 2, 12)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    interval = mean_interval(values.tolist())
    assert interval.mean - interval.half_width == pytest.approx(low)
    assert interval.mean + interval.half_width == pytest.approx(high)
    assert np.isnan(mean_interval([1.0]).half_width)
