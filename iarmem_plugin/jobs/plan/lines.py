"""On which line of a TOML file a key stands."""

from __future__ import annotations

from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import AoT, Table

MARK = "here-is-the-key-that-is-looked-for"
_NOT_THERE = (TOMLKitError, LookupError, TypeError, ValueError, AttributeError, RecursionError)


def line_of(text: str, place: tuple[str | int, ...]) -> int | None:
    """Return the line of a key, from 1, or else of what is nearest around it.

    Args:
        text: a TOML document.
        place: keys from the outermost, and numbers of what is listed, from 0.

    Returns:
        None where not even the outermost is there.

    Example:
        >>> line_of("[attack]\\nthreshold = 2", ("attack", "threshold"))
        2
    """
    for length in range(len(place), 0, -1):
        found = _line(text, place[:length])
        if found is not None:
            return found
    return None


def _line(text: str, place: tuple[str | int, ...]) -> int | None:
    """Mark a key in a copy of the document, and see on which line the mark is written."""
    try:
        document = tomlkit.parse(text)
        _mark(document, place)
        lines = document.as_string().splitlines()
    except _NOT_THERE:
        return None
    return next((number for number, line in enumerate(lines, 1) if MARK in line), None)


def _mark(document: Any, place: tuple[str | int, ...]) -> None:
    *outer, last = place
    for key in outer:
        document = document[key]
    item = document[last]
    if isinstance(item, AoT):
        item = item[0]
    if isinstance(item, Table):
        item.comment(MARK)
    else:
        document[last] = MARK
