"""One file for edge and devices: what it says arrives, what it cannot say is refused, and deploy/ uses it."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.main import get_command
from typer.testing import CliRunner

from offramp.cli import app, main
from offramp.model.codecs import CODECS
from offramp.policies import POLICIES
from offramp.runtime.configuration import (
    TABLES,
    DeviceConfig,
    EdgeConfig,
    differences,
    known_settings,
    load_configuration,
)

DEPLOY = Path(__file__).parents[2] / "deploy"
COMMANDS: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
NOT_SETTINGS = {"config", "help"}

texts = st.text(st.characters(codec="utf-8"), max_size=8)
paths = texts.filter(lambda name: "\0" not in name).map(lambda name: str(Path(f"/{name}")))
ports = st.integers(0, 65535)
positive = st.floats(0, exclude_min=True, allow_infinity=False)
codecs = st.one_of(st.just(""), st.just("all"), st.lists(st.sampled_from(sorted(CODECS))).map(",".join))
COMMON = {
    "bundle": paths,
    "seed": st.integers(0),
    "max_size": st.integers(1, 1000),
    "certs": paths,
    "insecure": st.booleans(),
    "metrics_port": ports,
    "log_format": st.sampled_from(["text", "json"]),
    "codecs": codecs,
}
SETTINGS = {
    "edge": COMMON
    | {
        "host": texts,
        "port": ports,
        "policy": st.sampled_from(sorted(POLICIES)),
        "policy_file": paths,
        "scenario": paths,
        "adapt": st.booleans(),
        "workers": st.integers(1, 256),
        "max_batch": st.integers(1, 64),
<<<<<<< HEAD
        "client_port": st.integers(0, 65535),
=======
        "engine": st.sampled_from(["local", "ray"]),
        "address": texts,
>>>>>>> 112b602 (Compute an edge's tails on a Ray cluster, so that one front end serves more than its own machine can compute)
    },
    "device": COMMON
    | {
        "edge": st.tuples(texts.filter(bool), st.integers(1, 65535)).map("{0[0]}:{0[1]}".format),
        "id": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
        "tasks": st.integers(1),
        "p": st.floats(0, 1, exclude_min=True),
        "k": positive,
        "slot_s": positive,
        "data": paths,
        "slowdown": st.floats(1, allow_infinity=False),
        "rate": st.integers(1, 10**6).map("{}kbit".format),
        "delay": st.integers(0, 60_000).map("{}ms".format),
        "link_trace": paths,
        "journal": paths,
        "confidence": st.floats(0.5, 0.99),
        "json": st.booleans(),
    },
}


def tables(name: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=SETTINGS[name])


def to_toml(document: dict[str, dict[str, Any]]) -> str:
    """Tables of plain values; a JSON string is a TOML string but for one character."""
    lines = []
    for table, settings in document.items():
        lines.append(f"[{table}]")
        for name, value in settings.items():
            text = repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
            lines.append(f"{name} = {text}".replace("\x7f", "\\u007F"))
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("configuration") / "offramp.toml"


def write(file: Path, document: dict[str, dict[str, Any]]) -> None:
    file.write_bytes(to_toml(document).encode())


def parsed(command: str, *arguments: str | Path) -> dict[str, Any]:
    """What a command's function is called with, without what is hidden or no setting."""
    known = COMMANDS[command]
    hidden = {parameter.name for parameter in known.params if parameter.hidden}
    values: dict[str, Any] = known.make_context(command, [str(argument) for argument in arguments]).params
    return {name: value for name, value in values.items() if name not in hidden | NOT_SETTINGS}


@pytest.mark.parametrize("table", TABLES)
def test_options_and_settings_are_the_same_with_the_same_defaults(table: str) -> None:
    options = {parameter.name for parameter in COMMANDS[table].params if not parameter.hidden}
    assert options - NOT_SETTINGS == set(TABLES[table].model_fields)
    assert set(SETTINGS[table]) == set(known_settings(TABLES[table]))
    needed = {"edge": "h:1", "id": "a"} if table == "device" else {}
    given_options = [text for name, value in needed.items() for text in (f"--{name}", value)]
    assert parsed(table, *given_options) == TABLES[table]().model_dump() | needed


@given(edge=tables("edge"), device=tables("device"))
def test_settings_survive_the_file(file: Path, edge: dict[str, Any], device: dict[str, Any]) -> None:
    write(file, {"edge": edge, "device": device})
    once = load_configuration(file)
    for table, settings in (("edge", edge), ("device", device)):
        model = getattr(once, table).model_dump(mode="json", by_alias=True)
        assert {name: model[name] for name in settings} == settings
    document = once.model_dump(mode="json", by_alias=True, exclude_none=True)
    write(file, document)
    assert tomllib.loads(file.read_text(encoding="utf-8")) == document
    assert load_configuration(file) == once


@pytest.mark.parametrize("table", TABLES)
@given(data=st.data())
def test_an_option_wins_over_the_file_and_the_file_over_the_default(
    file: Path, table: str, data: st.DataObject
) -> None:
    in_file = data.draw(tables(table))
    write(file, {table: in_file})
    defaults = TABLES[table]().model_dump()
    said = getattr(load_configuration(file), table).model_dump()
    options = {
        "seed": data.draw(st.none() | st.integers(0)),
        "max_size": data.draw(st.sampled_from([None, 32, 5])),
    }
    if table == "device":
        options |= {
            name: data.draw(SETTINGS["device"][name]) for name in ("edge", "id") if name not in in_file
        }
    given_options = {name: value for name, value in options.items() if value is not None}
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in given_options.items()]
    flag = data.draw(st.sampled_from([None, "--adapt", "--no-adapt"])) if table == "edge" else None
    if flag is not None:
        arguments.append(flag)
        given_options["adapt"] = flag == "--adapt"
    position = data.draw(st.integers(0, len(arguments)))
    arguments[position:position] = [f"--config={file}"]
    names = {"json": "json_"}
    from_file = {names.get(name, name): said[names.get(name, name)] for name in in_file}
    assert parsed(table, *arguments) == defaults | from_file | given_options


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    file = tmp_path / "offramp.toml"
    file.write_text('[edge]\nscenario = "s.json"\npolicy_file = "/p"\n[device]\njournal = "sub/j"\n')
    configuration = load_configuration(file)
    assert configuration.edge == EdgeConfig(scenario=tmp_path / "s.json", policy_file=Path("/p"))
    assert configuration.device.journal == tmp_path / "sub" / "j"
    assert parsed("edge", "--config", file)["scenario"] == tmp_path / "s.json"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[edge]\nmax-size = 3", "edge.max-size = 3: no such setting; did you mean max_size?"),
        ("[edge]\nzzz = 3", "edge.zzz = 3: no such setting; offramp config schema lists"),
        ("[device]\njson_ = true", "device.json_ = True: no such setting; did you mean json?"),
        ("[edgy]\nport = 3", "edgy = {'port': 3}: no such table; did you mean edge?"),
        ('[edge]\nport = "7077"', "edge.port = '7077': Input should be a valid integer; correct it in"),
        ("[edge]\nseed = true", "edge.seed = True: Input should be a valid integer"),
        ("[edge]\nport = 65536", "edge.port = 65536: Input should be less than or equal to 65535"),
        ('[edge]\npolicy = "best"', "edge.policy = 'best': one of ddqn, "),
        ('[edge]\ncodecs = "gif"', "edge.codecs = 'gif': "),
        ("[edge]\nbundle = 3", "edge.bundle = 3: "),
        ('[edge]\nbundle = "a\\u0000"', "edge.bundle = 'a\\x00': no file has"),
        ("edge = 3", "edge = 3: "),
        ('[device]\nrate = "fast"', "device.rate = 'fast': a rate > 0 in bit, kbit, mbit or gbit"),
        ('[device]\ndelay = "61s"', "device.delay = '61s': 0 to 60 s"),
        ('[device]\nedge = "here"', "device.edge = 'here': HOST:PORT with a port in 1..65535"),
        ('[device]\nid = "a b"', "device.id = 'a b': 1 to 64 letters"),
        ("[device]\nk = nan", "device.k = nan: "),
        (
            "[device]\nconfidence = 0.4",
            "device.confidence = 0.4: Input should be greater than or equal to 0.5",
        ),
        ("[device]\np = 1979-05-27", "device.p = datetime.date(1979, 5, 27): "),
        ("[edge\n", "not TOML ("),
        (b"[edge]\nhost = '\xff'", "cannot be read (not a text file)"),
        (None, "cannot be read (No such file or directory)"),
    ],
)
@pytest.mark.parametrize("command", [["config", "check"], ["edge", "--config"], ["device", "--config"]])
def test_a_bad_file_is_one_line_and_status_2(
    command: list[str],
    text: str | bytes | None,
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "offramp.toml"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    monkeypatch.setattr(sys, "argv", ["offramp", *command, str(file)])
    with pytest.raises(SystemExit) as stopped:
        main()
    output = capsys.readouterr()
    assert stopped.value.code == 2
    assert complaint in output.err
    assert str(file) in output.err
    assert output.err.count("\n") == 1
    assert output.out == ""


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[edge]\nbundle = "gone"', "edge.bundle"),
        ('[edge]\nscenario = "gone"', "edge.scenario"),
        ('[edge]\nscenario = "other.json"', "format"),
        ('[edge]\ncerts = "other.json"', "edge.certs"),
        ('[device]\nlink_trace = "other.json"', "link-trace"),
        ('[device]\njournal = "gone/journal"', "device.journal"),
        ('[device]\ndata = "gone"', "device.data"),
    ],
)
def test_check_looks_at_what_the_file_names(
    text: str,
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "other.json").write_text('{"format": "else"}')
    (tmp_path / "offramp.toml").write_text(text)
    monkeypatch.setattr(sys, "argv", ["offramp", "config", "check", str(tmp_path / "offramp.toml")])
    with pytest.raises(SystemExit) as stopped:
        main()
    output = capsys.readouterr().err
    assert stopped.value.code == 2
    assert complaint in output
    assert output.count("\n") == 1


@given(edge=tables("edge"), device=tables("device"))
def test_differences_are_what_is_not_by_default(
    file: Path, edge: dict[str, Any], device: dict[str, Any]
) -> None:
    write(file, {"edge": edge, "device": device})
    configuration = load_configuration(file)
    found = differences(configuration)
    for table, said in (("edge", edge), ("device", device)):
        assert set(found[table]) <= set(said)
        write(file, {table: {name: both["value"] for name, both in found[table].items()}})
        assert getattr(load_configuration(file), table) == getattr(configuration, table)


def test_check_prints_what_differs_and_what_is_still_needed(tmp_path: Path) -> None:
    file = tmp_path / "offramp.toml"
    file.write_text(
        '[edge]\nhost = "0.0.0.0"\nport = 7077\n[device]\nedge = "127.0.0.1:1"\njournal = "new"\n'
    )
    result = CliRunner().invoke(app, ["config", "check", str(file), "--json"], catch_exceptions=False)
    report = json.loads(result.stdout)
    assert report["differs"] == {
        "edge": {"host": {"value": "0.0.0.0", "default": "127.0.0.1"}},
        "device": {
            "edge": {"value": "127.0.0.1:1", "default": None},
            "journal": {"value": str(tmp_path / "new"), "default": None},
        },
    }
    needed = report["options_needed"]
    assert len(needed) == 2
    assert "edge.host" in needed[0]
    assert "--id" in needed[1]
    shown = CliRunner().invoke(app, ["config", "check", str(file)], catch_exceptions=False)
    assert 'edge.host = "0.0.0.0" (default: "127.0.0.1")' in shown.stdout
    assert "edge.port" not in shown.stdout


def test_the_schema_describes_every_setting() -> None:
    result = CliRunner().invoke(app, ["config", "schema"], catch_exceptions=False)
    schema = json.loads(result.stdout)
    assert schema["additionalProperties"] is False
    for table, model in TABLES.items():
        described = schema["$defs"][model.__name__]
        assert described["additionalProperties"] is False
        assert list(described["properties"]) == known_settings(model)
        assert all(setting["description"] for setting in described["properties"].values()), table


def test_the_example_is_valid() -> None:
    result = CliRunner().invoke(
        app, ["config", "check", str(DEPLOY / "offramp.toml")], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    schema = CliRunner().invoke(app, ["config", "schema"], catch_exceptions=False).stdout
    for name in re.findall(r"^# (\w+) = ", (DEPLOY / "offramp.toml").read_text(), re.MULTILINE):
        assert f'"{name}"' in schema


def commands_of_units() -> dict[str, list[str]]:
    found = {}
    for unit in ("offramp-edge.service", "offramp-device@.service"):
        lines = (DEPLOY / unit).read_text().splitlines()
        line = next(line.removeprefix("ExecStart=") for line in lines if line.startswith("ExecStart="))
        for variable, value in (("%i", "a"), ("%d", "/d"), ("${STATE_DIRECTORY}", "/s"), ("$OPTIONS", "")):
            line = line.replace(variable, value)
        found[unit] = shlex.split(line)[1:]
    return found


def commands_of_compose() -> dict[str, list[str]]:
    yaml = pytest.importorskip("yaml", reason="the compose file is YAML")
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    for service in services.values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert not source.endswith((".toml", ".yml")) or (DEPLOY / source).is_file()
    return {name: service["command"] for name, service in services.items() if "build" in service}


@pytest.mark.parametrize("deployment", [commands_of_units, commands_of_compose])
def test_what_is_deployed_starts_with_the_example(deployment: Any) -> None:
    commands = deployment()
    assert {command[0] for command in commands.values()} == {"edge", "device"}
    example = load_configuration(DEPLOY / "offramp.toml")
    for command, *arguments in commands.values():
        here = [argument.replace("/etc/offramp", str(DEPLOY)) for argument in arguments]
        settings = parsed(command, *here)
        assert settings["metrics_port"] == getattr(example, command).metrics_port
        assert settings["certs"] is not None
        if command == "device":
            assert settings["journal"] is not None
            assert settings["rate"] == example.device.rate != DeviceConfig().rate


def test_one_file_runs_an_edge_and_a_device(tmp_path: Path) -> None:
    file = tmp_path / "offramp.toml"
    write(
        file,
        {
            "edge": {"port": 0, "policy": "myopic"},
            "device": {"id": "a", "tasks": 7, "p": 1.0, "json": True, "journal": "a.journal"},
        },
    )
    offramp = [sys.executable, "-m", "offramp"]
    edge = subprocess.Popen([*offramp, "edge", "--config", str(file)], stderr=subprocess.PIPE, text=True)
    try:
        assert edge.stderr is not None
        ready = edge.stderr.readline()
        port = re.search(r"127\.0\.0\.1:(\d+), policy myopic", ready)
        assert port is not None, ready
        device = subprocess.run(
            [*offramp, "device", "--config", str(file), "--edge", f"127.0.0.1:{port[1]}", "--tasks", "5"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert device.returncode == 0, device.stderr
        summary = json.loads(device.stdout)
        assert summary["submitted"] == 5
        assert (tmp_path / "a.journal").exists()
        edge.send_signal(signal.SIGTERM)
        _, rest = edge.communicate(timeout=20)
        assert edge.returncode == 0, rest
    finally:
        edge.kill()
        edge.wait()
        edge.stderr.close()  # type: ignore[union-attr]
