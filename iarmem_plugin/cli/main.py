"""``iarmem`` on the command line: its commands, and how they end.

Exit codes: 0 done; 1 a bug, with its traceback; 2 an argument, file, picture, model or plugin
that cannot be used, or a plugin that fails, with one plain line on standard error, of at most 400
signs; 3 a report that was run again has other numbers; 130 interrupted; 143 ended by SIGTERM.

Only typer and rich are imported here; a command imports what it needs when it runs.
"""

from __future__ import annotations

import errno
import logging
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Annotated, Any, NoReturn, cast

import typer
from typer.core import TyperGroup

from iarmem_plugin.cli import models, store
from iarmem_plugin.cli.attack import attack
from iarmem_plugin.cli.auditing import audit, inspect
from iarmem_plugin.cli.compare import compare, rerun
from iarmem_plugin.cli.console import LOGGER, LogLevel, say, terminal, unhindered, warn
from iarmem_plugin.cli.ending import ends_orderly
from iarmem_plugin.cli.export import export
from iarmem_plugin.cli.features import features
from iarmem_plugin.cli.localize import localize
from iarmem_plugin.cli.mitigate import mitigate
from iarmem_plugin.cli.rank import rank
from iarmem_plugin.cli.sides import compare_scores
from iarmem_plugin.errors import IarmemError, InputError
from iarmem_plugin.files import DISK_FULL_ERRNOS
from iarmem_plugin.text import shown

_USAGE_ERROR = cast("type[Exception]", typer.BadParameter.__base__)  # typer does not export it
_USERS_ERRNOS = frozenset(  # what a path or a disk can be, whatever the code
    {
        *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR, errno.EISDIR),
        *(errno.ENAMETOOLONG, errno.ELOOP, errno.EROFS, errno.ENOTEMPTY, errno.EBUSY, errno.ENXIO),
        *(errno.ENODEV, errno.EIO, errno.ESTALE, errno.EXDEV, errno.EMFILE, errno.ENFILE),
        *DISK_FULL_ERRNOS,
    }
)


class Commands(TyperGroup):
    """The commands; what iarmem refuses becomes one plain line and exit code 2."""

    def main(self, *args: Any, **settings: Any) -> Any:
        """Run what the command line asks for, whether or not its messages can be printed."""
        with unhindered():
            return super().main(*args, **settings)

    def make_context(
        self, info_name: Any, args: list[str], parent: Any = None, **settings: Any
    ) -> Any:
        """Read the arguments that stand before the command."""
        with _plain_errors():
            _check_given(args)
            return super().make_context(info_name, args, parent, **settings)

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        with _plain_errors(), ends_orderly(), warnings.catch_warnings():  # puts the next back
            warnings.showwarning = warn
            return super().invoke(ctx)


def _check_given(arguments: list[str]) -> None:
    """Refuse an empty argument: as a path it would be the current folder."""
    for place, one in enumerate(arguments):
        if not one or (one.startswith("--") and one.endswith("=")):
            option = one.rstrip("=") or (arguments[place - 1] if place else "the command")
            raise InputError(
                f"{shown(option, 60)} was given an empty value; a variable may be unset"
            )


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Say in one line what a user gave wrong; a bug keeps its traceback."""
    try:
        yield
    except IarmemError as error:
        plugin = _plugin(error)
        _refuse(str(error) if plugin is None else f"{plugin}: {error}", error)
    except OSError as error:
        if (plugin := _plugin(error)) is not None:
            _refuse_plugin(plugin, error)
        if error.errno not in _USERS_ERRNOS:
            raise
        place = "" if error.filename is None else f"{shown(error.filename, 120)}: "
        _refuse(f"{place}{error.strerror}; see that it is what the command expects", error)
    except _USAGE_ERROR as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            raise
        _refuse(_usage(error), error)
    except Exception as error:
        if (plugin := _plugin(error)) is None:
            raise
        _refuse_plugin(plugin, error)


def _plugin(error: Exception) -> str | None:
    """Return the plugin that raised an error; None if none did."""
    if not hasattr(error, "__notes__"):
        return None
    from iarmem_plugin.plugins.blame import blame

    note = blame(error)
    return None if note is None else note.removeprefix("in ")


def _refuse_plugin(plugin: str, error: Exception) -> NoReturn:
    if LOGGER.isEnabledFor(logging.DEBUG):
        traceback.print_exception(error)
    _refuse(
        f"{plugin} failed with {type(error).__name__}: {shown(error)}; its traceback is shown with "
        "--log-level debug",
        error,
    )


def _usage(error: Any) -> str:
    said = str(error.format_message()).rstrip(".")
    asked = "iarmem" if error.ctx is None else error.ctx.command_path
    said = " ".join(said.replace("Value error, ", "").split())
    return f"{shown(said, 300)}; see '{asked} --help'"


def _refuse(message: str, error: Exception) -> NoReturn:
    say(f"Error: {message}")
    raise typer.Exit(2) from error


app = typer.Typer(
    cls=Commands,
    help="Find where an image autoregressive model memorized its training images, and reduce it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(models.demo)
app.command()(localize)
app.command()(rank)
app.command()(features)
app.command()(mitigate)
app.command()(compare)
app.command()(rerun)
app.command()(attack)
app.command()(audit)
app.command()(inspect)
app.command("compare-scores")(compare_scores)
app.command()(export)
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
