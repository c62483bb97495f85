"""A plan's file: read, with what was typed in place of its keys."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iarmem_plugin.errors import InputError
from iarmem_plugin.jobs.plan.mistakes import At, Source
from iarmem_plugin.jobs.plan.parts.values import Located
from iarmem_plugin.jobs.plan.plan import Plan
from iarmem_plugin.text import shown
from iarmem_plugin.untrusted import read_text

if TYPE_CHECKING:
    from iarmem_plugin.report.report import Report

LIMIT = 2**18  # bytes; a plan is written by hand
MOST_DOTS = 2000  # but for numbers': a key of n parts takes memory that grows with n squared
_NUMBER = re.compile(r"(?<![\w.-])\d+\.\d+(?![\w.-])")
_WHERE = re.compile(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", re.DOTALL)


def read_plan(path: str | Path, *, given: Sequence[str] = ()) -> Plan:
    """Read a plan from a TOML file, and check all of it that can be checked without the model.

    Args:
        path: file of the plan; relative paths in it start at its folder.
        given: further keys, or others in place of the file's, as ``"attack.prefix-tokens=5"``:
            the value is TOML, or else text. Relative paths in it start at the current folder.

    Raises:
        InputError: it cannot be read, or the first thing that is wrong with it, with its line.
    """
    file = Path(path)
    text = read_text(file, "the plan", limit=LIMIT)
    document = _parsed(text, file.name)
    words = _put_all(document, given)
    source = Source(file.name, file.resolve().parent, text, words, look=True)
    return Plan.from_document(document, source=source)


def with_given(document: Mapping[str, Any], given: Sequence[str], *, name: str) -> Plan:
    """Return the plan that a report holds, with keys in place of its own; see `read_plan`.

    Args:
        document: what `Plan.to_document` returned.
        given: further keys, or others.
        name: where it comes from, for messages.

    Raises:
        InputError: what is wrong with it.
    """
    copied = _copied(document)
    source = Source(name, given=_put_all(copied, given), look=True)
    return Plan.from_document(copied, source=source)


def plan_of(report: Report, *, given: tuple[str, ...] = (), name: str = "the report") -> Plan:
    """Return the plan that a report was made by.

    Args:
        report: what `compare` returned or wrote.
        given: keys in place of the plan's, see `read_plan`.
        name: what the report is to the user.

    Raises:
        InputError: it holds none, or one that cannot be run here.
    """
    document = report.provenance.get("plan")
    if not isinstance(document, Mapping):
        raise InputError(
            f"{shown(name)} holds no plan, so it cannot be run again; give the folder that iarmem "
            "compare wrote"
        )
    return with_given(document, given, name=f"the plan in {shown(name)}")


def _parsed(text: str, name: str) -> dict[str, Any]:
    if _NUMBER.sub("", text).count(".") > MOST_DOTS:
        raise InputError(f"{shown(name)} has more than {MOST_DOTS} dots, too many for a plan")
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise InputError(f"{shown(name)} is nested too deep to be a plan") from error
    except ValueError as error:  # TOMLDecodeError, and integers of too many digits
        found = _WHERE.fullmatch(str(error))
        reason, line = (str(error), None) if found is None else found.groups()
        line = len(text.splitlines()) if found is not None and line is None else line
        where = shown(name) if line is None else f"{shown(name)}, line {line}"
        raise InputError(f"{where}: this is not TOML: {_lower(reason)}") from error


def _put_all(document: dict[str, Any], given: Sequence[str]) -> dict[At, str]:
    """Put all that was typed into a document; return what names each in messages."""
    words: dict[At, str] = {}
    for one in given:
        place, value, said = _typed(one)
        words[place] = said
        _put(document, place, value, said)
    return words


def _typed(given: str) -> tuple[At, Any, str]:
    """Return where a key stands, its value, and the words that name it in messages."""
    key, equals, text = given.partition("=")
    words = f"--set {shown(given, 80)}"
    place = _key(key.strip()) if equals else None
    if place is None:
        raise InputError(f"{words}: write KEY=VALUE, such as attack.prefix-tokens=5")
    return place, _located(_value(text.strip())), words


def _key(key: str) -> At | None:
    try:
        found: Any = tomllib.loads(f"{key} = 0")
    except (ValueError, RecursionError):
        return None
    place: list[str | int] = []
    while isinstance(found, dict) and len(found) == 1:
        ((part, found),) = found.items()
        place.append(int(part) if part.isdecimal() and place else part)
    return tuple(place) if found == 0 else None


def _value(text: str) -> Any:
    try:
        found = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return found["value"] if list(found) == ["value"] else text


def _located(value: Any) -> Any:
    """Return a value whose texts, as paths, start at the current folder."""
    if isinstance(value, str):
        return Located(value, Path.cwd())
    if isinstance(value, list):
        return [_located(one) for one in value]
    if isinstance(value, dict):
        return {key: _located(one) for key, one in value.items()}
    return value


def _put(document: dict[str, Any], place: At, value: Any, words: str) -> None:
    """Put a value into a document, with the tables that it needs.

    Raises:
        InputError: something else than a table or list is in the way, or the list is shorter.
    """
    here: Any = document
    *outer, last = place
    for part in outer:
        here = here.setdefault(part, {}) if isinstance(here, dict) else _item(here, part, words)
    if isinstance(here, dict):
        here[last] = value
    else:
        _item(here, last, words)
        here[last] = value


def _item(here: Any, part: str | int, words: str) -> Any:
    if not isinstance(here, list):
        raise InputError(f"{words}: {shown(part, 60)!r} would be inside of what is no table")
    if not isinstance(part, int) or part >= len(here):
        raise InputError(
            f"{words}: {shown(part, 60)!r} is not in the list; expected a number from 0 to "
            f"{len(here) - 1}"
        )
    return here[part]


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(one) for key, one in value.items()}
    return [_copied(one) for one in value] if isinstance(value, list | tuple) else value


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
