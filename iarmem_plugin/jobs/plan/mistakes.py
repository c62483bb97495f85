"""What is wrong with a plan, in one plain sentence that names the file, the line and the key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from iarmem_plugin.jobs.plan.lines import line_of
from iarmem_plugin.text import shown

At = tuple[str | int, ...]
"""Where something stands in a plan: keys, and numbers of those that are listed."""

LISTED = ("grid", "arm", "drop", "expect")
_EXPECTED = {
    "bool_type": "expected true or false",
    "dict_type": "expected a table",
    "model_type": "expected a table",
    "model_attributes_type": "expected a table",
    "tuple_type": "expected a list",
    "string_type": "expected a text",
    "too_short": "expected at least one",
}


@dataclass(frozen=True, slots=True)
class Source:
    """Where a plan comes from.

    Attributes:
        name: what it is to the user, such as the name of its file.
        folder: folder that relative paths start at; None for the current one.
        text: TOML of it, where it is a file.
        given: what was typed in place of a key, by where the key stands.
        look: whether what a path names must be there.
    """

    name: str = "the plan"
    folder: Path | None = None
    text: str | None = None
    given: Mapping[At, str] = field(default_factory=dict)
    look: bool = False

    def at(self, place: At) -> str:
        """Return what a sentence about a place begins with: ``"plan.toml, line 12: "``."""
        for typed, words in self.given.items():
            if typed and place[: len(typed)] == typed:
                return f"{words}: "
        line = None if self.text is None else line_of(self.text, place)
        if line is None:
            beside = (words for typed, words in self.given.items() if typed[:1] == place[:1])
            return f"{next(beside, shown(self.name))}: "
        return f"{shown(self.name)}, line {line}: "


def wrong(said: str, *at: str | int) -> PydanticCustomError:
    """Return an error whose whole sentence is known, and where it is."""
    return PydanticCustomError("sentence", "{said}", {"said": said, "at": at})


def wrong_key(said: str, key: str) -> PydanticCustomError:
    """Return an error about a key of a table; the sentence begins with the table."""
    return PydanticCustomError("key", "{said}", {"said": said, "at": (key,)})


def nearest(key: object, known: Iterable[str]) -> str:
    """Return which known key may be meant, and else all of them."""
    names = list(known)
    near = get_close_matches(str(key).replace("_", "-"), names, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]!r}?"
    said = [repr(one) if "," in one else one for one in names]  # names of arms hold commas
    return f"it has: {', '.join(said)}"


def explained(error: ValidationError, document: Any, source: Source) -> str:
    """Say the first thing that is wrong with a plan in one sentence.

    Args:
        error: what pydantic raised.
        document: the plan as it was read.
        source: where it comes from.
    """
    found = error.errors(include_url=False)
    found.sort(key=lambda one: one["type"] != "key")  # a wrong name is why another is missing
    first = found[0]
    context = first.get("ctx", {})
    place = _place(first["loc"], document)
    return f"{source.at((*place, *context.get('at', ())))}{_sentence(first, place)}"


def label(place: At) -> str:
    """Return a place as a user would write it.

    >>> label(("grid", 0, "fractions", 1))
    '[[grid]] fractions[1]'
    """
    if not place:
        return "the plan"
    first, *rest = place
    if first in LISTED:
        rest = rest[1:]
    inside = "".join(f"[{part}]" if isinstance(part, int) else f".{_key(part)}" for part in rest)
    table = f"[[{first}]]" if first in LISTED else f"[{shown(first, 60)}]"
    return f"{table} {inside.removeprefix('.')}".rstrip()


def _sentence(error: Any, place: At) -> str:
    context = error.get("ctx", {})
    if error["type"] == "sentence":
        return str(context["said"])
    if error["type"] == "key":
        return f"{label(place)} {context['said']}"
    what = label(place) if len(place) > 1 else shown(place[0] if place else "the plan", 60)
    return f"{what} is {_given(error['input'])}; {_expected(error)}"


def _expected(error: Any) -> str:
    context = error.get("ctx", {})
    if error["type"] == "value_error":
        return str(context["error"])
    if error["type"] == "literal_error":
        return f"expected {context['expected']}"
    return _EXPECTED.get(error["type"], str(error["msg"]))


def _given(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple) and value:
        return "a list"
    if isinstance(value, Mapping):
        return "a table"
    return shown(repr(str(value) if isinstance(value, str | Path) else value), 80)


def _key(part: str) -> str:
    bare = part.replace("-", "").replace("_", "")
    return shown(part if bare.isalnum() and bare.isascii() else f'"{part}"', 60)


def _place(location: tuple[int | str, ...], document: Any) -> At:
    """Return where in a document pydantic means: it also names the parts of a union."""
    place: list[str | int] = []
    here = document
    for part in location:
        inside = isinstance(here, Mapping) and part in here
        listed = isinstance(here, list | tuple) and isinstance(part, int) and part < len(here)
        if inside or listed:
            place.append(part)
            here = here[part]
    return tuple(place)
