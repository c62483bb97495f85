"""What the commands print: tables or JSON on stdout; lines, bars, warnings and logs on stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import StrEnum
from io import TextIOWrapper
from typing import Any, TextIO, cast

import typer
from rich.console import Console, Group
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from iarmem_plugin.errors import InputError
from iarmem_plugin.table import TextTable
from iarmem_plugin.text import LONGEST_LINE, one_line

LOGGER = logging.getLogger("iarmem_plugin")


class LogLevel(StrEnum):
    """The least important lines of the log that are shown."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


def show(result: Mapping[str, Any], table: TextTable | Group, *, as_json: bool) -> None:
    """Print a result as one line of JSON, or its table; see `echo`."""
    if as_json:
        echo(json.dumps(result, allow_nan=False))
        return
    kept = _Kept(sys.stdout)
    Console(file=cast("TextIO", kept)).print(table)
    echo("".join(kept.parts), nl=False)


def echo(text: str, *, nl: bool = True) -> None:
    """Print text on stdout; where its reader is gone, nothing more is printed there.

    Raises:
        InputError: it cannot be written to, as on a full disk.
    """
    try:
        typer.echo(text, nl=nl)
    except OSError as error:
        _discard(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            raise InputError(
                f"standard output cannot be written to ({error.strerror}); files that the command "
                "wrote are whole; name another place to print to"
            ) from error


def say(line: object, *, err: bool = True, limit: int = LONGEST_LINE) -> None:
    """Print one line of text, whoever wrote parts of it, on stderr or stdout."""
    if err:
        typer.echo(one_line(line, limit), err=True)
    else:
        echo(one_line(line, limit))


def warn(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning in one plain line; it can stand in for `warnings.showwarning`."""
    say(f"Warning: {message}")


@contextmanager
def terminal(level: LogLevel | None = None) -> Iterator[None]:
    """Show the log on stderr, and print any sign on stdout, be it by its escape.

    Args:
        level: what is shown of the log; by default warnings where bars are seen, and else
            information, too. Of several processes, only the first tells more than warnings.
    """
    chosen = level or (LogLevel.warning if bars_are_seen() else LogLevel.info)
    if os.environ.get("RANK", "0") != "0" and chosen in (LogLevel.debug, LogLevel.info):
        chosen = LogLevel.warning
    lines, before, strict = _Lines(), LOGGER.level, getattr(sys.stdout, "errors", None)
    LOGGER.addHandler(lines)
    LOGGER.setLevel(chosen.upper())
    _print_signs(by="backslashreplace")
    try:
        yield
    finally:
        LOGGER.removeHandler(lines)
        LOGGER.setLevel(before)
        _print_signs(by=strict)


@contextmanager
def unhindered() -> Iterator[None]:
    """Let no message end the work: what stderr does not take, as on a full disk, is left out."""
    before = sys.stderr
    sys.stderr = forgiving = cast("TextIO", _Forgiving(before))
    try:
        yield
    finally:
        if sys.stderr is forgiving:
            sys.stderr = before
        try:
            before.flush()
        except (OSError, ValueError):  # Python would try again in the end, and exit with 120
            _discard(before)


@contextmanager
def progress_bars(*, hidden: bool = False) -> Iterator[Progress | None]:
    """Give where progress bars are shown, be it as lines of the log; None if they are hidden."""
    columns = (
        _Description(),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not bars_are_seen()) as progress:
        yield None if hidden else progress


def bars_are_seen() -> bool:
    """Tell whether stderr is a terminal."""
    return Console(stderr=True).is_terminal


class _Forgiving:
    """A stream that leaves out what cannot be written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Kept:
    """What would be printed on a stream, drawn as that stream can show it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self.parts = stream, list[str]()

    def write(self, text: str) -> int:
        self.parts.append(text)
        return len(text)

    def flush(self) -> None:
        """Do nothing."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Description(ProgressColumn):
    """What a bar is about, as `progress_bar` escaped it."""

    def render(self, task: Task) -> Text:
        return Text.from_markup(task.description, emoji=False)


class _Lines(logging.Handler):
    """Each entry of the log as a line with the time."""

    def emit(self, record: logging.LogRecord) -> None:
        say(f"{time.strftime('%H:%M:%S')} {record.getMessage()}")


def _discard(stream: TextIO) -> None:
    """Send all that is and will be written to a stream nowhere."""
    with suppress(OSError, ValueError):  # it has no descriptor, or is closed
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def _print_signs(*, by: str | None) -> None:
    """Set what stdout does with signs that its encoding lacks."""
    if by is not None and isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors=by)
