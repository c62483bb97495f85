"""What the commands print: tables or JSON on stdout; bars and warnings on stderr."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console, Group
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table


def show(result: Mapping[str, Any], table: Table | Group, *, as_json: bool) -> None:
    """Print a result as one line of JSON, or its table."""
    if as_json:
        typer.echo(json.dumps(result, allow_nan=False))
    else:
        Console().print(table)


def make_table(title: str, *columns: str) -> Table:
    """Return an empty table, as wide as its title, whose cells are folded where need be."""
    table = Table(title=title, title_justify="left", min_width=len(title))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def warn(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning in one plain line; it can stand in for `warnings.showwarning`."""
    typer.echo(f"Warning: {message}", err=True)


@contextmanager
def progress_bars(*, hidden: bool = False) -> Iterator[Progress]:
    """Give where progress bars are shown, or not shown if they are to be hidden."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=hidden) as progress:
        yield progress


def bars_are_seen() -> bool:
    """Tell whether stderr is a terminal."""
    return Console(stderr=True).is_terminal
