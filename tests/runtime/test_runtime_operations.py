"""Logs, units and dashboard say what the commands really do."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from offramp.cli import app
from offramp.errors import OfframpError
from offramp.runtime.device_core import DeviceCore
from offramp.runtime.edge_core import EdgeCore
from offramp.runtime.logs import JsonLines, start_logging
from offramp.runtime.metrics import DeviceMetrics, EdgeMetrics

DEPLOY = Path(__file__).parents[2] / "deploy"


def test_a_log_line_is_one_json_object() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        import sys

        record = logging.LogRecord("offramp.x", logging.ERROR, "f", 1, "bad %s", ("thing\n",), sys.exc_info())
    line = JsonLines().format(record)
    assert "\n" not in line
    entry = json.loads(line)
    assert (entry["level"], entry["message"]) == ("error", "bad thing\n")
    assert "ValueError" in entry["exception"]
    with pytest.raises(OfframpError, match="log-format = 'xml'"):
        start_logging("xml")


@pytest.mark.parametrize("unit", ["offramp-edge.service", "offramp-device@.service"])
def test_units_use_options_that_exist(unit: str) -> None:
    line = next(line for line in (DEPLOY / unit).read_text().splitlines() if line.startswith("ExecStart="))
    command = line.split()[1]
    known = {option for parameter in get_command(app).commands[command].params for option in parameter.opts}  # type: ignore[attr-defined]
    assert set(re.findall(r"--[a-z-]+", line)) <= known


def test_the_dashboard_shows_metrics_that_exist(four_exits) -> None:  # type: ignore[no-untyped-def]
    from offramp.instance import system_of
    from offramp.policies.greedy import Myopic
    from offramp.runtime.own import OwnSystem
    from offramp.runtime.rehearsal import Rehearsal
    from offramp.scenario import Scenario

    own = OwnSystem(four_exits, 1.0, 1e5)
    edge: EdgeCore = Rehearsal(system_of(Scenario(), four_exits), Myopic()).edge
    registries = EdgeMetrics(edge).registry, DeviceMetrics(DeviceCore(own), own).registry
    kinds = {"counter": "_total", "histogram": "_bucket", "gauge": ""}
    names = {metric.name + kinds[metric.type] for registry in registries for metric in registry.collect()}
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    used = {name for query in queries for name in re.findall(r"offramp_\w+", query)}
    assert used
    assert used <= names


def test_certs_are_made_from_the_command_line(tmp_path: Path) -> None:
    runner = CliRunner()
    folder = str(tmp_path / "certs")
    for arguments in (
        ["init", folder],
        ["issue", folder, "edge"],
        ["issue", folder, "a"],
        ["revoke", folder, "a"],
    ):
        result = runner.invoke(app, ["certs", *arguments])
        assert result.exit_code == 0, result.output
    assert {"ca.pem", "ca.key", "crl.pem", "edge.pem", "edge.key"} <= {
        file.name for file in (tmp_path / "certs").iterdir()
    }
    with pytest.raises(OfframpError, match="cannot be read"):
        runner.invoke(app, ["certs", "revoke", folder, "nobody"], catch_exceptions=False)
