"""``iarmem`` on the command line: its commands, and how they end.

Exit codes: 0 done; 1 a bug, with its traceback; 2 an argument, file, picture, model or plugin
that cannot be used, with one plain line on standard error; 130 interrupted; 143 ended by SIGTERM.

Only typer and rich are imported here; a command imports what it needs when it runs.
"""

from __future__ import annotations

import warnings
from importlib import metadata
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from iarmem_plugin.cli import models, store
from iarmem_plugin.cli.console import LogLevel, say, terminal, warn
from iarmem_plugin.cli.ending import ends_orderly
from iarmem_plugin.cli.localize import localize
from iarmem_plugin.cli.mitigate import mitigate
from iarmem_plugin.errors import IarmemError


class Commands(TyperGroup):
    """The commands; what iarmem refuses becomes one plain line and exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            with ends_orderly(), warnings.catch_warnings():  # which puts the line below back, too
                warnings.showwarning = warn
                return super().invoke(ctx)
        except IarmemError as error:
            say(f"Error: {error}")
            raise typer.Exit(2) from error


app = typer.Typer(
    cls=Commands,
    help="Find where an image autoregressive model memorized its training images, and reduce it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(models.demo)
app.command()(localize)
app.command()(mitigate)
app.command()(models.models)
app.command()(models.fetch)
app.command("plugins")(models.list_plugins)
app.add_typer(store.app, name="store")


def _version(asked: bool) -> bool:
    if asked:
        say(f"iarmem {metadata.version('iarmem')}", err=False)
        raise typer.Exit
    return asked


@app.callback()
def main(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_version, help="Show the version."),
    ] = False,
    log_level: Annotated[
        LogLevel | None,
        typer.Option(
            metavar="LEVEL",
            help="Least important lines of the log: debug, info, warning or error; without a "
            "terminal info, else warning.",
        ),
    ] = None,
) -> None:
    """Find where an image autoregressive model memorized its training images, and reduce it."""
    context.with_resource(terminal(log_level))
