"""The `offramp` command: parse, call, print. Each command's module is thin and imports what it runs on use."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from offramp import __version__
from offramp.cli import demo, doctor, figures, model, policy, runtime, simulation, solve, training
from offramp.cli.bench import bench
from offramp.cli.bundle import bundle
from offramp.cli.certs import certs
from offramp.cli.compare import compare
from offramp.cli.config import config
from offramp.cli.profiling import profile
from offramp.errors import OfframpError


class _Commands(TyperGroup):
    """The commands, where Ctrl-C is one line: Typer would end without a word and hide it from `main`."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("offramp: stopped", file=sys.stderr)
            raise typer.Exit(130) from None


app = typer.Typer(
    name="offramp",
    cls=_Commands,
    help="Run deep networks across a device and an edge server so that every task meets its deadline.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"offramp {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


app.command()(simulation.stream)
app.command()(simulation.simulate)
app.command()(compare)
app.command()(solve.solve)
app.command()(model.inspect)
app.command()(bundle)
app.command()(model.evaluate)
app.command()(profile)
app.command()(figures.figure)
app.command()(doctor.doctor)
app.command()(demo.demo)
app.command()(runtime.edge)
app.command()(runtime.device)
app.command()(demo.replay)
app.command()(bench)
app.command()(training.train_model)
app.command()(training.attach_exits)
app.command()(training.export)
app.command()(policy.train_policy)
app.add_typer(certs)
app.add_typer(config)


def main() -> None:
    """Entry point: a user's mistake is one line on standard error and status 2; Ctrl-C is status 130."""
    try:
        app()
    except OfframpError as error:
        print(f"offramp: {error}", file=sys.stderr)
        sys.exit(2)
