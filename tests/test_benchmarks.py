"""The suite of benchmarks: what it runs again, how it ends, and that its page is what the kept results give."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from bench import Places, outcome, run_suite
from plant.report import Figure
from serving.carried import SHARE, greatest
from serving.exits import extract, inputs
from serving.network import Network
from serving.offered import offered, simulated
from serving.servers import running
from suite import page, pictures
from suite.parts import BENCHMARKS, PARTS, Part

from offramp.envs import bundled_exits
from offramp.task import Task

GOOD, BAD = (
    "import pathlib\n{}\npathlib.Path('b/results/{}.json').write_text('{{\"value\": {}}}')\n",
    "raise OSError\n",
)


def part(name: str) -> Part:
    return Part(
        name,
        name,
        "",
        0.1,
        (f"{name}.py",),
        (f"{name}.json",),
        lambda result: [Figure("value", result["value"], "<=", 2)],
        pictures.bound,
    )


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """A suite of its own: `one` holds its limit, `three` misses it, `none` fails, `silent` has nothing to do."""
    made = Places(tmp_path / "b", tmp_path / "package", tmp_path / "build")
    for folder in (made.benchmarks / "results", made.package):
        folder.mkdir(parents=True)
    (made.package / "code.py").write_text("")
    (made.benchmarks / "one.py").write_text(GOOD.format("", "one", 1))
    (made.benchmarks / "three.py").write_text(GOOD.format("", "three", 3))
    (made.benchmarks / "none.py").write_text(BAD)
    (made.benchmarks / "silent.py").write_text("print('no recordings')\n")
    return made


def test_every_part_is_run_whatever_becomes_of_the_others(
    places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = [part(name) for name in ("none", "three", "silent", "one")]
    assert run_suite(parts, False, places) == 1
    said = capsys.readouterr()
    assert "[4/4] one: held" in said.out
    assert "none: failed: OSError" in said.err
    assert "three: missed" in said.err
    assert "silent: not run: no recordings" in said.err
    assert run_suite(parts[3:], False, places) == 0


def test_what_has_ended_is_kept_until_its_sources_change(places: Places) -> None:
    one, three, none = part("one"), part("three"), part("none")
    run_suite([one, three, none], False, places)
    assert [outcome(each, places) for each in (one, three, none)] == ["held", "missed", None]
    result = places.benchmarks / "results" / "one.json"
    before = result.stat().st_mtime_ns
    assert run_suite([one], False, places) == 0
    assert result.stat().st_mtime_ns == before
    assert run_suite([one], True, places) == 0
    assert result.stat().st_mtime_ns > before
    (places.package / "code.py").write_text("changed = True\n")
    assert outcome(one, places) is None
    run_suite([one], False, places)
    assert outcome(one, places) == "held"
    result.unlink()
    assert outcome(one, places) is None


def test_an_interrupted_suite_ends_what_it_has_started_and_keeps_the_rest(places: Places) -> None:
    endless = (
        f"open({str(places.benchmarks / 'pid')!r}, 'w').write(str(os.getpid()))\nwhile True: time.sleep(1)\n"
    )
    (places.benchmarks / "three.py").write_text(f"import os, time\n{endless}")
    program = (
        "import signal, sys, test_benchmarks as t\n"
        "from pathlib import Path\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "t.run_suite([t.part('one'), t.part('three')], False, t.Places(*map(Path, sys.argv[1:])))\n"
    )
    paths = [str(Path(__file__).parent), str(BENCHMARKS), *filter(None, [os.environ.get("PYTHONPATH")])]
    folders = [str(places.benchmarks), str(places.package), str(places.build)]
    suite = subprocess.Popen(
        [sys.executable, "-c", program, *folders],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    told = places.benchmarks / "pid"
    until_s = time.monotonic() + 30
    while not (told.exists() and told.read_text()):
        assert time.monotonic() < until_s
        time.sleep(0.05)
    suite.send_signal(signal.SIGINT)
    assert suite.wait(30) != 0
    with pytest.raises(ProcessLookupError):
        os.kill(int(told.read_text()), 0)
    assert [outcome(part(name), places) for name in ("one", "three")] == ["held", None]


def test_the_parts_name_scripts_and_results_of_their_own() -> None:
    assert len({each.name for each in PARTS}) == len(PARTS)
    for each in PARTS:
        assert all((BENCHMARKS / command.split()[0]).exists() for command in each.commands)


def test_the_committed_page_is_what_the_committed_results_give() -> None:
    found = page.value()
    assert json.loads(page.JSON.read_text(encoding="utf-8")) == found, "run: python benchmarks/page.py"
    assert page.PAGE.read_text(encoding="utf-8") == page.markdown(found), "run: python benchmarks/page.py"
    for path in page.DOCS:
        text = path.read_text(encoding="utf-8")
        assert page.TABLE.search(text)
        assert text == page.with_tables(text), "run: python benchmarks/page.py"
    for each in PARTS:
        if each.kept() is not None:
            picture = (page.PICTURES / f"{each.name}.png").read_bytes()
            assert page.digest(each).encode() in picture, f"{each.name}: run: python benchmarks/page.py"


def test_a_page_can_be_made_of_nothing_and_of_some(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    some = [each for each in PARTS if each.name in ("bound", "overload")]
    results = tmp_path / "results"
    results.mkdir()
    places = (results / "bench.json", tmp_path / "page.md", tmp_path / "pictures")
    page.write(some, results, *places)
    assert places[1].read_text().count("Not measured yet") == 2
    link = {"bandwidth_bytes_per_s": 1.25e6, "median_ratio": 1.2, "measured_s": 0.03}
    link |= {"head_s": 0.001, "link_s": 0.015, "round_trip_s": 0.0001, "tail_s": 0.006}
    faster = link | {"bandwidth_bytes_per_s": 1.25e7}
    (results / "bound.json").write_text(json.dumps({"links": [link, faster]}))
    page.write(some, results, *places)
    figures = json.loads(places[0].read_text())["parts"]["bound"]["figures"]
    assert [figure["holds"] for figure in figures] == [False, True]
    assert (places[2] / "bound.png").read_bytes().startswith(b"\x89PNG")


def test_tasks_that_are_run_together_get_their_own_logits(tmp_path: Path) -> None:
    served = extract(1, tmp_path)
    network = Network(str(served.model))
    tasks = [inputs(size)[size] for size in (1, 3, 2)]
    together = network.answers([task.tobytes() for task in tasks])
    for task, logits in zip(tasks, together, strict=True):
        alone = network.run(task)
        np.testing.assert_allclose(
            np.frombuffer(logits, np.float32).reshape(alone.shape), alone, rtol=1e-4, atol=1e-5
        )


def test_a_real_edge_and_the_model_answer_an_easy_load_and_not_an_impossible_one(tmp_path: Path) -> None:
    served = extract(1, tmp_path)
    easy = [Task(0.05 * number, 1, 1.0, number % 2) for number in range(20)]
    hopeless = [Task(0.001 * number, 10, 1e-5, number % 2) for number in range(20)]
    with running("offramp", served, 2, 8) as server:
        assert offered(served, server.port, easy) == 20
        assert offered(served, server.port, hopeless) == 0
    assert simulated(bundled_exits(), easy, 2, 8) == 20
    assert simulated(bundled_exits(), hopeless, 2, 8) == 0


@pytest.mark.parametrize(("most", "found"), [(1.0, 0.9), (0.0, 0.0), (1e9, 3.3)])
def test_the_greatest_load_is_found_between_the_ends(most: float, found: float) -> None:
    assert greatest(lambda rate: 1.0 if rate <= most else SHARE - 0.01, 1.0) == pytest.approx(found, rel=0.15)
