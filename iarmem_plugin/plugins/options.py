"""Options of plugins: what a constructor takes, and how it is written: ``gini:power=2``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Plugin
from iarmem_plugin.interfaces.plugin import constructor, members, types_of
from iarmem_plugin.text import shown

REQUIRED = inspect.Parameter.empty
_BOOLS = {"true": True, "yes": True, "on": True, "1": True} | {
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}
_PART = re.compile(
    r"""\s*(?P<key>[^=,'"]*?)\s*=\s*
    (?:'(?P<single>[^']*)'|"(?P<double>[^"]*)"|(?P<bare>[^,'"][^,]*|))\s*(?:,|$)""",
    re.VERBOSE,
)
_ARGUMENT = re.compile(r" {4}(\w+)(?: \([^)]*\))?: (\S.*)")
_SENTENCE = re.compile(r"; |\. ")
_READ_IN_TURN = (bool, int, float, Path, str)


@dataclass(frozen=True, slots=True)
class Option:
    """One thing that a plugin's constructor takes.

    Attributes:
        name: its name.
        types: what it may be, of what can be typed on a command line; none: in Python only.
        default: its default; `REQUIRED` where it has none.
        does: first line of what the class's docstring says of it.
    """

    name: str
    types: tuple[Any, ...]
    default: object
    does: str

    @property
    def form(self) -> str:
        """Return what it may be, in words, such as ``"float or none"``."""
        return " or ".join(map(_form, self.types)) or "in Python only"

    @property
    def shown(self) -> str:
        """Return its name, type and default, such as ``"power (float, 1.0)"``."""
        default = "required" if self.default is REQUIRED else shown(self.default, 40)
        return f"{self.name} ({self.form}, {default})"

    def read(self, text: str) -> object:
        """Return what a text means, by the first type that can read it.

        Raises:
            ValueError: it means nothing.
        """
        plain = str in self.types and "," not in text
        for one in sorted(self.types, key=_rank):
            if plain and get_origin(one) is tuple:
                continue
            try:
                return _read(one, text)
            except (ValueError, KeyError):
                continue
        raise ValueError(f"expected {self.form}")


@dataclass(frozen=True, slots=True)
class Written:
    """A plugin and its options as a user wrote them, not yet looked up.

    Attributes:
        name: name of the plugin.
        texts: text of each option by its name.
    """

    name: str
    texts: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str, kind: str = "plugin") -> Written:
        """Read ``NAME[:KEY=VALUE[,KEY=VALUE...]]``.

        A value that has a comma in it stands in quotes: ``highest:scales='0,1'``.

        Raises:
            InputError: it has another form, or an option twice.

        Example:
            >>> Written.of("gini:power=2")
            Written(name='gini', texts={'power': '2'})
        """
        name, colon, rest = text.partition(":")
        texts: dict[str, str] = {}
        place = 0
        while place < len(rest) or (colon and not texts):
            found = _PART.match(rest, place)
            if found is None or not found["key"] or found["key"] in texts or not name:
                raise InputError(
                    f"{kind} {shown(text, 120)!r} was given; write NAME:KEY=VALUE,KEY=VALUE, each "
                    "key once, and a value with a comma in it in quotes: KEY='A,B'"
                )
            values = (found["single"], found["double"], found["bare"])
            texts[found["key"]] = next(one for one in values if one is not None).rstrip()
            place = found.end()
        return cls(name, texts)

    def __str__(self) -> str:
        """Return the text that `of` reads.

        Raises:
            InputError: a value has a comma and quotes of both kinds.

        Example:
            >>> str(Written("highest", {"scales": "0,1"}))
            "highest:scales='0,1'"
        """
        said = ",".join(f"{name}={_quoted(text)}" for name, text in self.texts.items())
        return f"{self.name}:{said}" if said else self.name

    def values(self, plugin: type[Plugin]) -> dict[str, object]:
        """Return the options as a class's constructor takes them.

        Raises:
            InputError: it has no such option, or a value is none of its type; the message lists
                what there is.
        """
        known = {option.name: option for option in options(plugin)}
        what = f"{plugin.kind} {plugin.name!r}"
        values: dict[str, object] = {}
        for name, text in self.texts.items():
            if name not in known:
                raise InputError(f"{what} has no option {shown(name, 40)!r}; {listed(plugin)}")
            try:
                values[name] = known[name].read(text)
            except ValueError as error:
                raise InputError(
                    f"{what} was given {name}={shown(text, 60)}; {error}; {listed(plugin)}"
                ) from error
        return values


def options(plugin: type[Plugin]) -> tuple[Option, ...]:
    """Return what a class's constructor takes, in its order."""
    hints, said = types_of(plugin), _said(plugin)
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return tuple(
        Option(name, _types(hints.get(name), one), one.default, said.get(name, ""))
        for name, one in constructor(plugin).items()
        if one.kind in named
    )


def listed(plugin: type[Plugin]) -> str:
    """Return what options a class has, as the end of a sentence."""
    return f"it has: {', '.join(one.shown for one in options(plugin)) or 'no options'}"


def _types(hint: Any, parameter: inspect.Parameter) -> tuple[Any, ...]:
    """Return the types that can be typed; without an annotation, that of the default, or text."""
    if parameter.annotation is not inspect.Parameter.empty:
        found = tuple(one for one in members(hint) if hint is not None and _is_typed(one))
        found = tuple(one for one in found if one is not str or Path not in found)
        return () if found == (type(None),) else found
    default = None if parameter.default is REQUIRED else parameter.default
    kind = type(default)
    return (kind,) if kind in _READ_IN_TURN else (str, type(None))


def _is_typed(one: Any) -> bool:
    if get_origin(one) is tuple:
        return all(inside is ... or inside in _READ_IN_TURN for inside in get_args(one))
    return one in (*_READ_IN_TURN, type(None)) or get_origin(one) is Literal


def _quoted(text: str) -> str:
    """Return a value as it is written: in quotes where it has a comma, or begins with a quote."""
    if "," not in text and text[:1] not in ("'", '"'):
        return text
    quote = next((one for one in ("'", '"') if one not in text), None)
    if quote is None:
        raise InputError(
            f"{shown(text, 120)!r} has quotes of both kinds and cannot be written as the value of "
            "an option; rename it"
        )
    return f"{quote}{text}{quote}"


def _rank(one: Any) -> int:
    """Order types from the one that reads least to the one that reads all: text."""
    if get_origin(one) is tuple:
        return 4
    first = (type(None), bool, int, float)
    return first.index(one) if one in first else {Path: 5, str: 6}.get(one, 3)


def _read(one: Any, text: str) -> object:
    if get_origin(one) is Literal:
        return {str(value): value for value in get_args(one)}[text]
    if get_origin(one) is tuple:
        return _tuple(get_args(one), text)
    readers: dict[Any, Callable[[str], object]] = {
        type(None): lambda given: None if given.lower() == "none" else _no(),
        bool: lambda given: _BOOLS[given.lower()],
        Path: lambda given: Path(given).expanduser() if given else _no(),
    }
    return readers.get(one, one)(text)


def _tuple(items: tuple[Any, ...], text: str) -> tuple[object, ...]:
    parts = [part.strip() for part in text.split(",")]
    kinds = [items[0]] * len(parts) if len(items) == 2 and items[1] is ... else list(items)
    return tuple(_read(kind, part) for kind, part in zip(kinds, parts, strict=True))


def _no() -> object:
    raise ValueError("it means nothing")


def _form(one: Any) -> str:
    if one is type(None):
        return "none"
    if get_origin(one) is Literal:
        return " or ".join(map(str, get_args(one)))
    if get_origin(one) is tuple:
        inside = [item for item in get_args(one) if item is not ...]
        return f"{','.join(map(_form, inside))}{',...' if ... in get_args(one) else ''}"
    words: dict[Any, str] = {Path: "file", str: "text", bool: "true or false"}
    return words.get(one, str(getattr(one, "__name__", one)))


def _said(plugin: type[Plugin]) -> dict[str, str]:
    """Return what the docstrings of a class and of those above it say of each argument."""
    found: dict[str, str] = {}
    for one in plugin.__mro__:
        found = _arguments(inspect.cleandoc(one.__doc__ or "")) | found
    return found


def _arguments(docstring: str) -> dict[str, str]:
    """Return the first sentence of what a docstring's ``Args`` say of each argument."""
    texts: dict[str, list[str]] = {}
    name = ""
    for line in docstring.partition("Args:\n")[2].splitlines():
        if not line.startswith("    "):
            break
        match = _ARGUMENT.fullmatch(line)
        if match is not None:
            name = match[1]
        texts.setdefault(name, []).append(line.strip() if match is None else match[2])
    whole = {name: " ".join(lines) for name, lines in texts.items() if name}
    return {name: _SENTENCE.split(text)[0].rstrip(".") for name, text in whole.items()}
