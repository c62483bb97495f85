"""The kinds of values in a plan: what each may be is said in the words of its error."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Strict

from iarmem_plugin import plugins
from iarmem_plugin.errors import IarmemError, UnknownNameError
from iarmem_plugin.files import looks_like_url
from iarmem_plugin.interfaces import LossQuality, Plugin
from iarmem_plugin.plugins.create import check, create
from iarmem_plugin.plugins.options import Written
from iarmem_plugin.plugins.registry import Kind, find
from iarmem_plugin.text import shown

LONGEST_TEXT = 400
LARGEST_SEED = 2**53  # which every reader of JSON gives back
_SMALL = (
    "selector",
    "scorer",
    "intervention",
    "edit",
    "trigger",
)  # making one refuses wrong values
OWN_CLASSIFIER, TUNED = "fid", "tuned"
RANDOM, MATCHED = "random", "random-matched"
Selecting = Literal["selector", "scorer"]
Info = Any
"""What pydantic tells a validator, of which type checks at run time make nothing."""


class Located(str):
    """A text whose path, if it is one, is relative to a folder of its own."""

    folder: Path

    def __new__(cls, text: str, folder: Path) -> Located:
        """Make a text that knows its folder."""
        made = super().__new__(cls, text)
        made.folder = folder
        return made


def _whole(least: int, most: int = LARGEST_SEED) -> BeforeValidator:
    """Take an integer between bounds; truth values are none."""
    bound = f"of {least} or more" if most == LARGEST_SEED else f"from {least} to {most}"

    def check_whole(value: object) -> object:
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"expected a whole number {bound}")
        return value

    return BeforeValidator(check_whole)


def _number(within: Callable[[float], bool], expected: str) -> BeforeValidator:
    """Take a finite number that passes a test; truth values are none."""

    def check_number(value: object) -> float:
        if type(value) not in (int, float) or not _fits(cast("int | float", value), within):
            raise ValueError(f"expected {expected}")
        return float(cast("int | float", value))

    return BeforeValidator(check_number)


def _fits(value: int | float, within: Callable[[float], bool]) -> bool:
    try:
        return math.isfinite(value) and within(float(value))
    except OverflowError:  # an integer larger than any float
        return False


def _words(value: object) -> str:
    """Take a text of one line."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError("expected a text of one line")
    if len(value) > LONGEST_TEXT:
        raise ValueError(f"expected at most {LONGEST_TEXT} signs")
    return value


def _place(value: object, info: Info) -> Path:
    """Take a path, and make it absolute: it is relative to the plan's folder."""
    if not isinstance(value, str | Path) or not str(value):
        raise ValueError("expected a path")
    path = _absolute(value, info)
    if (info.context or {}).get("look", False):
        _check_there(path)
    return path


def _absolute(value: str | Path, info: Info) -> Path:
    if looks_like_url(value):
        raise ValueError("it looks like a URL; name a file or folder on this machine")
    folder = value.folder if isinstance(value, Located) else (info.context or {}).get("folder")
    return Path(os.path.abspath(Path(folder or ".") / os.path.expanduser(value)))


def _check_there(path: Path) -> None:
    """Refuse a path at which there is no file or folder."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise ValueError(f"there is nothing at {shown(path)}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"it cannot be opened: {reason}") from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ValueError("it is a device or pipe; name a file or folder")


def _plugin(kind: Kind) -> BeforeValidator:
    """Take a plugin's name with its options, and make the files that it names absolute."""

    def check_plugin(value: object, info: Info) -> str:
        text = _words(value)
        if kind == "quality" and text == OWN_CLASSIFIER:
            return text  # an organism's own; the plan refuses it without one
        try:
            return _with_files(kind, text, value, info)
        except IarmemError as error:
            raise ValueError(str(error)) from error

    return BeforeValidator(check_plugin)


def _with_files(kind: Kind, text: str, value: object, info: Info) -> str:
    if kind == "selector":
        kind = kind_of(text)
    files = check(kind, text)
    if kind in _SMALL:
        made(kind, text)
    if not files:
        return text
    written, texts = Written.of(text, kind), {}
    for name, path in files.items():
        option = name.partition(":")[2]
        given = Located(str(path), value.folder) if isinstance(value, Located) else path
        texts[option] = str(_place(given, info))
    return str(Written(written.name, {**written.texts, **texts}))


def kind_of(selector: str) -> Selecting:
    """Say whether a text names a selector, or a scorer whose highest neurons are selected.

    Raises:
        UnknownNameError: it names neither.
        InputError: it has another form.
    """
    name = Written.of(selector, "selector").name
    selectors, scorers = plugins.names("selector"), plugins.names("scorer")
    if name in scorers and name not in selectors:
        return "scorer"
    try:
        find("selector", name)
    except UnknownNameError as error:
        raise UnknownNameError(f"{error}; by contrast: {', '.join(scorers)}") from None
    return "selector"


def made(kind: str, text: str) -> Plugin:
    """Return a new instance of a plugin that is small to make; see `create`."""
    return cast(Plugin, create(kind, text))  # type: ignore[call-overload]  # of several kinds


def needs_of(edit: str) -> list[str]:
    """Return which images an edit of the whole model needs, see `EditData`."""
    return sorted(getattr(made("edit", edit), "needs", ()))


def _selectable(value: object, info: Info) -> str:
    """Take a selector for a grid, which draws random sets by itself."""
    text = str(value)
    if isinstance(value, str) and text.partition(":")[0] in (RANDOM, MATCHED):
        raise ValueError("random sets are drawn beside a grid's arms: see random-sets")
    return cast(str, value)


def _of_images(value: object) -> object:
    """Take a measure of generated images, and none of predictions."""
    text = _words(value)
    try:
        known = find("quality", Written.of(text, "quality").name)
    except IarmemError as error:
        raise ValueError(str(error)) from error
    if issubclass(known, LossQuality):
        raise ValueError(
            f"{known.name} measures predictions; expected a measure of images, such as "
            "fid:extractor=FILE"
        )
    return value


def _temperature(value: object) -> object:
    if value == TUNED:
        return value
    if type(value) in (int, float) and _fits(cast("int | float", value), _above_0):
        return float(cast("int | float", value))
    raise ValueError(f"expected a number above 0, or {TUNED!r}")


def _above_0(value: float) -> bool:
    return value > 0


def _known_model(value: object) -> str:
    """Take the name of a model or family that an installed adapter loads."""
    text = _words(value)
    try:
        plugins.conditions(text)
    except IarmemError as error:
        raise ValueError(str(error)) from error
    return text


def listed(names: Iterable[str]) -> str:
    """Return names with commas between them, shown as text."""
    return ", ".join(shown(name, 60) for name in names)


Flag = Annotated[bool, Strict()]
Words = Annotated[str, BeforeValidator(_words)]
Place = Annotated[Path, BeforeValidator(_place)]
Count = Annotated[int, _whole(0)]
Positive = Annotated[int, _whole(1)]
Several = Annotated[int, _whole(2, 10_000_000)]
Seed = Annotated[int, _whole(0)]
Sets = Annotated[int, _whole(0, 10_000)]
Processes = Annotated[int, _whole(0, 512)]
Rounds = Annotated[int, _whole(1, 1000)]
Splits = Annotated[int, _whole(1, 100)]
Images = Annotated[int, _whole(0, 1_000_000)]
Number = Annotated[float, _number(lambda _: True, "a finite number")]
Above0 = Annotated[float, _number(_above_0, "a number above 0")]
Least0 = Annotated[float, _number(lambda one: one >= 0, "a number of 0 or more")]
Share = Annotated[float, _number(lambda one: 0 <= one <= 1, "a number from 0 to 1")]
Between = Annotated[float, _number(lambda one: 0 < one < 1, "a number between 0 and 1")]
Fraction = Annotated[float, _number(lambda one: 0 < one <= 1, "a number in (0, 1]")]
Temperature = Annotated[float | Literal["tuned"], BeforeValidator(_temperature)]
Model = Annotated[str, BeforeValidator(_known_model)]
Selector = Annotated[str, _plugin("selector")]
InGrid = Annotated[Selector, BeforeValidator(_selectable)]
Intervention = Annotated[str, _plugin("intervention")]
Similarity = Annotated[str, _plugin("similarity")]
ImageQuality = Annotated[str, _plugin("quality"), BeforeValidator(_of_images)]
Edit = Annotated[str, _plugin("edit")]
Trigger = Annotated[str, _plugin("trigger")]
