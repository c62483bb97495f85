"""Arguments of the wrong kind, refused in one plain line that says what was given."""

from __future__ import annotations

import math
from numbers import Integral, Real

from iarmem_plugin.errors import InputError
from iarmem_plugin.text import shown


def check_integer(name: str, value: object, *, least: int | None = None) -> None:
    """Refuse what is no integer; truth values are none.

    Args:
        name: what the value is to the user.
        value: integer, Python's or numpy's.
        least: smallest value; None for any.

    Raises:
        InputError: naming it.
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or (least is not None and value < least):  # type: ignore[operator]  # an integer
        bound = "" if least is None else f" of {least} or more"
        raise _unexpected(name, value, f"an integer{bound}")


def check_number(name: str, value: object) -> None:
    """Refuse what is no finite real number; truth values are none.

    Raises:
        InputError: naming it.
    """
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
        raise _unexpected(name, value, "a finite number")


def check_kind(name: str, value: object, kinds: type | tuple[type, ...], expected: str) -> None:
    """Refuse what is no instance of some classes.

    Args:
        name: what the value is to the user.
        value: any object.
        kinds: classes, of one of which it should be.
        expected: the classes in words.

    Raises:
        InputError: naming it.
    """
    if not isinstance(value, kinds):
        raise _unexpected(name, value, expected)


def _unexpected(name: str, value: object, expected: str) -> InputError:
    plain = value is None or isinstance(value, bool | int | float | str)
    kind = f"a {type(value).__name__}"
    if isinstance(value, type):
        kind = f"the class {shown(value.__name__, 60)}, and no instance"
    given = shown(repr(value), 60) if plain else kind
    return InputError(f"{name} is {given}; expected {expected}")
