"""What a file may tell an edge and a device: TOML with a table for each, and the defaults that options have too."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Strict,
    ValidationError,
    ValidationInfo,
)

from offramp.errors import OfframpError
from offramp.host_profile import CONFIDENCES
from offramp.policies import POLICIES, check_policy
from offramp.runtime.logs import FORMATS, check_log_format
from offramp.validation import one_line, read_text

MOST_INPUTS = 1000
"""No task may be larger than this, whatever the settings say."""
MOST_WORKERS = 256
"""Tasks that one edge may compute at the same time."""
MOST_BATCH = 64
"""Tasks that one worker may run together."""
LAST_PORT = 65535
_FOLDER = "folder"


def check_policy_name(name: str) -> None:
    """Raises OfframpError if there is no such policy."""
    check_policy(name, None)


def _address(text: str) -> None:
    from offramp.runtime.transport import split_address

    split_address("edge", text)


def _name(text: str) -> None:
    from offramp.runtime.protocol import check_name

    check_name(text)


def _rate(text: str) -> None:
    from offramp.link import parse_rate

    parse_rate(text)


def _delay(text: str) -> None:
    from offramp.link import parse_delay

    parse_delay(text)


def _codecs(names: str) -> None:
    from offramp.model.codecs import named_codecs

    named_codecs(names, ())


def _passing(check: Callable[[str], None]) -> AfterValidator:
    """The value as it is, if `check` raises no OfframpError; pydantic names the field and the value itself."""

    def checked(value: str) -> str:
        try:
            check(value)
        except OfframpError as error:
            raise ValueError(f"{error.allowed}; {error.remedy}") from None
        return value

    return AfterValidator(checked)


def _beside_the_file(path: Path, info: ValidationInfo) -> Path:
    if "\0" in str(path):
        raise ValueError("no file has a null character in its name")
    return Path((info.context or {}).get(_FOLDER, ""), path)


# TOML has no type for paths, so these are the only values that are made of another type.
FilePath = Annotated[Path, Strict(False), AfterValidator(_beside_the_file)]
Port = Annotated[int, Field(ge=0, le=LAST_PORT)]
Size = Annotated[int, Field(ge=1, le=MOST_INPUTS)]
Workers = Annotated[int, Field(ge=1, le=MOST_WORKERS)]
Batch = Annotated[int, Field(ge=1, le=MOST_BATCH)]
CodecNames = Annotated[str, _passing(_codecs)]
LogFormat = Annotated[str, _passing(check_log_format), Field(json_schema_extra={"enum": list(FORMATS)})]


class _Table(BaseModel):
    """What edge and device have in common. The settings are the options' names with underscores.

    Paths that are not absolute are relative to the file's folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    bundle: FilePath | None = None
    seed: NonNegativeInt = 0
    max_size: Size = 32
    certs: FilePath | None = None
    insecure: bool = False
    metrics_port: Port | None = None
    log_format: LogFormat = "text"


class EdgeConfig(_Table):
    """The table `[edge]`: what `offramp edge` is told."""

    host: str = "127.0.0.1"
    port: Port = 7077
    policy: (
        Annotated[str, _passing(check_policy_name), Field(json_schema_extra={"enum": sorted(POLICIES)})]
        | None
    ) = None
    policy_file: FilePath | None = None
    scenario: FilePath | None = None
    adapt: bool = True
    codecs: CodecNames = ""
    workers: Workers = 1
    max_batch: Batch = 1
    client_port: Port | None = None
    engine: Literal["local", "ray"] = "local"
    address: str | None = None


class DeviceConfig(_Table):
    """The table `[device]`: what `offramp device` is told. `edge` and `id` must come from here or the options."""

    edge: Annotated[str, _passing(_address)] | None = None
    id: Annotated[str, _passing(_name)] | None = None
    tasks: PositiveInt = 100
    p: Annotated[float, Field(gt=0, le=1)] = 0.1 / 3
    k: PositiveFloat = 3.0
    slot_s: PositiveFloat | None = None
    data: FilePath | None = None
    slowdown: Annotated[float, Field(ge=1)] = 1.0
    rate: Annotated[str, _passing(_rate)] = "1000kbit"
    delay: Annotated[str, _passing(_delay)] = "0ms"
    link_trace: FilePath | None = None
    journal: FilePath | None = None
    confidence: Annotated[float, Field(ge=CONFIDENCES[0], le=CONFIDENCES[1])] | None = None
    codecs: CodecNames = "all"
    # `json` is a method of every pydantic model.
    json_: Annotated[bool, Field(alias="json")] = False


class Configuration(BaseModel):
    """One file for an edge and its devices (TOML)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    edge: EdgeConfig = EdgeConfig()
    device: DeviceConfig = DeviceConfig()


TABLES: dict[str, type[_Table]] = {"edge": EdgeConfig, "device": DeviceConfig}


def load_configuration(path: Path) -> Configuration:
    """The settings of a file; relative paths are made relative to its folder.

    Raises OfframpError if it cannot be read, is not TOML, or has an unknown setting or a bad value.
    """
    try:
        data = tomllib.loads(read_text(path, "config"))
    except tomllib.TOMLDecodeError as error:
        raise OfframpError("config", str(path), f"not TOML ({error})", f"correct {path}") from None
    try:
        return Configuration.model_validate(data, context={_FOLDER: path.parent})
    except ValidationError as error:
        raise _explained(error, str(path)) from None


def _explained(error: ValidationError, source: str) -> OfframpError:
    """See `one_line`; an unknown setting gets the known one that looks most like it."""
    first = error.errors()[0]
    if first["type"] != "extra_forbidden":
        return one_line(error, source, f"correct it in {source}")
    *table, unknown = (str(part) for part in first["loc"])
    names = known_settings(TABLES[table[0]]) if table else list(TABLES)
    alike = difflib.get_close_matches(unknown.replace("-", "_"), names, 1)
    remedy = f"did you mean {alike[0]}?" if alike else "offramp config schema lists what there is"
    kind = "setting" if table else "table"
    place = ".".join((*table, unknown))
    return OfframpError(f"{source}: {place}", first["input"], f"no such {kind}", remedy)


def known_settings(table: type[_Table]) -> list[str]:
    """The names that a table's settings have in a file."""
    return [field.alias or name for name, field in table.model_fields.items()]


def given_settings(configuration: Configuration, table: str) -> dict[str, Any]:
    """The settings that the file states, by the names of the command's parameters."""
    given: dict[str, Any] = getattr(configuration, table).model_dump(exclude_unset=True)
    return given


def differences(configuration: Configuration) -> dict[str, dict[str, dict[str, Any]]]:
    """By table and setting, `value` and `default` of what is not as it would be without the file."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for table, model in TABLES.items():
        defaults = model().model_dump(mode="json", by_alias=True)
        values = getattr(configuration, table).model_dump(mode="json", by_alias=True)
        found[table] = {
            name: {"value": value, "default": defaults[name]}
            for name, value in values.items()
            if value != defaults[name]
        }
    return found


def check_paths(configuration: Configuration, source: str) -> None:
    """Raises OfframpError for a file or folder that is named and is not there; scenario and trace are read, too.

    A journal's own file may be missing, not its folder.
    """
    from offramp.link import load_trace
    from offramp.scenario import load_scenario

    for table in TABLES:
        settings = getattr(configuration, table)
        for name, value in settings:
            if not isinstance(value, Path):
                continue
            if name == "journal":
                there, what = value.parent.is_dir(), "its folder does not exist"
            elif name in ("certs", "data"):
                there, what = value.is_dir(), "no such folder"
            elif name == "bundle":
                there, what = value.exists(), "no such file or folder"
            else:
                there, what = value.is_file(), "no such file"
            if not there:
                raise OfframpError(f"{source}: {table}.{name}", str(value), what, f"correct it in {source}")
    if configuration.edge.scenario is not None:
        load_scenario(configuration.edge.scenario)
    if configuration.device.link_trace is not None:
        load_trace(configuration.device.link_trace, 0.0, 0.0)


def open_points(configuration: Configuration) -> list[str]:
    """What the commands would refuse unless options add to the file: mutual TLS, the edge's address, a name."""
    from offramp.runtime.transport import check_exposure, split_address

    edge, device = configuration.edge, configuration.device
    hosts: list[tuple[str, str, _Table]] = [("edge.host", edge.host, edge)]
    if device.edge is not None:
        hosts.append(("device.edge", split_address("edge", device.edge)[0], device))
    points = []
    for field, host, table in hosts:
        try:
            check_exposure(field, host, encrypted=table.certs is not None, insecure=table.insecure)
        except OfframpError as error:
            points.append(str(error))
    points += [f"device needs --{name}" for name in ("edge", "id") if getattr(device, name) is None]
    return points
