"""The Ray engine on a real cluster of two nodes on this machine: the local engine's numbers, whatever is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from offramp.errors import OfframpError
from offramp.experiments import figures
from offramp.experiments.cells import NetworkExits
from offramp.experiments.engine import Engine, InlineEngine
from offramp.experiments.ray_engine import RayEngine
from offramp.scenario import Scenario
from offramp.training.policy import make_learner, train
from two_nodes import TwoNodes, installed

SMALL = Scenario(tasks=15)
POLICIES = ("random", "greedy", "myopic")

# What Ray itself leaves behind when a node is killed is not ours to close.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module")
def local(four_exits: NetworkExits, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """What this process makes of the figure."""
    return figure_5(InlineEngine(), four_exits, tmp_path_factory.mktemp("local"))


def figure_5(
    engine: Engine, exits: NetworkExits, folder: Path, after_cell: Callable[[int], None] = lambda done: None
) -> list[bytes]:
    """The bytes of figure 5's files."""
    steps = figures.run_sweep(5, SMALL, exits, POLICIES, "network", 2, engine, folder / "f")
    for done, data in enumerate(steps, 1):
        if data is None:
            after_cell(done)
    assert data is not None
    return [path.read_bytes() for path in figures.save_figure(data, folder)]


@installed
def test_a_figure_has_the_local_engines_bytes(
    nodes: TwoNodes, local: list[bytes], four_exits: NetworkExits, tmp_path: Path
) -> None:
    assert figure_5(RayEngine(nodes.address), four_exits, tmp_path / "ray") == local


@installed
def test_a_figure_has_them_when_a_node_is_killed_half_way(
    nodes: TwoNodes, local: list[bytes], four_exits: NetworkExits, tmp_path: Path
) -> None:
    cells = figures.sweep_cells(figures.SWEEPS[5], SMALL, POLICIES, "network", 2)

    def kill(done: int) -> None:
        if done == sum(map(len, cells.values())) // 2:
            nodes.kill_second()

    assert figure_5(RayEngine(nodes.address), four_exits, tmp_path / "ray", kill) == local
    assert nodes.second is None


@installed
def test_what_is_interrupted_is_kept_and_not_run_again(
    nodes: TwoNodes, local: list[bytes], four_exits: NetworkExits, tmp_path: Path
) -> None:
    def interrupt(done: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        figure_5(RayEngine(nodes.address), four_exits, tmp_path / "ray", interrupt)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "ray" / "f" / "cells").iterdir()}
    assert len(kept) == 5
    assert figure_5(RayEngine(nodes.address), four_exits, tmp_path / "ray") == local
    assert kept == {path: path.stat().st_mtime_ns for path in kept}


@installed
def test_what_the_work_raises_is_raised_as_it_was(nodes: TwoNodes) -> None:
    engine = RayEngine(nodes.address)
    assert sorted(engine.run(figures.check_number, [3, 5])) == [(3, None), (5, None)]
    with pytest.raises(OfframpError, match=r"^figure = 4: one of 3, 5, 6, 7; choose one of these$"):
        list(engine.run(figures.check_number, [3, 4, 5]))


@installed
def test_other_code_on_a_machine_is_refused(nodes: TwoNodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offramp.experiments.ray_engine.code_digest", lambda: "another")
    with pytest.raises(OfframpError, match="has other code of Offramp"):
        list(RayEngine(nodes.address).run(figures.check_number, [3]))


@installed
def test_a_policy_trained_on_a_cluster_is_the_one_trained_here(
    nodes: TwoNodes, four_exits: NetworkExits, tmp_path: Path
) -> None:
    from offramp.cluster import cluster
    from offramp.training.remote import RemoteLearner

    make = partial(make_learner, "ddqn-paper", Scenario().changed(p=0.3), four_exits, 1, steps=4000)
    gain = train(make(), tmp_path / "local")
    with cluster(nodes.address) as ray:
        learner = RemoteLearner(ray, make)
        # A worker that is killed between two pieces, once before and once after a checkpoint.
        losses = [2, 3]

        def report(done: int, gain: float) -> None:
            if losses and done >= losses[0] * learner.steps // 5:
                if losses.pop(0) == 3:
                    learner.checkpoint()
                ray.kill(learner._host)

        assert train(learner, tmp_path / "ray", report=report) == gain
        assert not losses
    assert (tmp_path / "ray").read_bytes() == (tmp_path / "local").read_bytes()


@installed
def test_the_command_writes_the_same_files_and_prints_one_object(nodes: TwoNodes, tmp_path: Path) -> None:
    (tmp_path / "small.json").write_text(SMALL.model_dump_json())
    command = [sys.executable, "-m", "offramp", "figure", "5", "--timing", "network", "--policies", "greedy"]
    command += ["--seeds", "2", "--scenario", str(tmp_path / "small.json"), "--json", "-o"]
    written = []
    for name, engine in (
        ("local", ("--jobs", "1")),
        ("ray", ("--engine", "ray", "--address", nodes.address)),
    ):
        command_here = [*command, str(tmp_path / name), *engine]
        done = subprocess.run(command_here, capture_output=True, text=True, timeout=100, check=True)
        written.append([Path(path).read_bytes() for path in json.loads(done.stdout)["files"]])
    assert len(written[0]) == 3
    assert written[0] == written[1]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "", "127.0.0.1:99999999"])
@installed
def test_an_address_without_a_cluster_is_one_line(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(OfframpError, match="address = ") as raised:
        list(RayEngine(address).run(figures.check_number, [3]))
    assert len(str(raised.value).splitlines()) == 1


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(OfframpError, match=r"pip install 'offramp\[ray\]'"):
        list(RayEngine("127.0.0.1:1").run(figures.check_number, [3]))
