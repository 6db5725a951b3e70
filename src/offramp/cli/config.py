"""`offramp config check` and `schema`, and how `--config FILE` reaches a command's options."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from offramp.cli.arguments import errors, print_json
from offramp.cli.options import JsonFlag
from offramp.runtime.configuration import (
    TABLES,
    Configuration,
    check_paths,
    differences,
    given_settings,
    load_configuration,
    open_points,
)

config = typer.Typer(
    name="config", help="The TOML file that edge and device read with --config.", no_args_is_help=True
)


def from_file(table: str) -> Callable[[typer.Context, Path | None], Path | None]:
    """An eager option's callback: what the file's table states becomes the default of the other options."""

    def read(context: typer.Context, path: Path | None) -> Path | None:
        if path is not None and not context.resilient_parsing:
            context.default_map = given_settings(load_configuration(path), table)
        return path

    return read


@config.command()
def check(
    file: Annotated[Path, typer.Argument(help="TOML file with the tables [edge] and [device].")],
    json_: JsonFlag = False,
) -> None:
    """Validate a file and the paths in it, and print what differs from the defaults."""
    configuration = load_configuration(file)
    check_paths(configuration, str(file))
    found, points = differences(configuration), open_points(configuration)
    if json_:
        print_json({"file": str(file), "differs": found, "options_needed": points})
        return
    typer.echo(f"{file}: valid")
    for table, settings in found.items():
        for name, both in settings.items():
            typer.echo(
                f"{table}.{name} = {json.dumps(both['value'])} (default: {json.dumps(both['default'])})"
            )
    for point in points:
        errors.print(f"note: {point}", soft_wrap=True, markup=False)


@config.command()
def schema(context: typer.Context) -> None:
    """Print the file's JSON schema."""
    print_json(described_schema(context.find_root().command))


def described_schema(root: Any) -> dict[str, Any]:
    """The schema of a file, each setting with the help of the option that it stands for."""
    written = Configuration.model_json_schema()
    for table, model in TABLES.items():
        properties = written["$defs"][model.__name__]["properties"]
        for parameter in root.commands[table].params:
            field = model.model_fields.get(parameter.name)
            if field is not None:
                properties[field.alias or parameter.name]["description"] = parameter.help
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **written}
