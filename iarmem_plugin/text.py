"""Text that others wrote, as text that can be shown: names of files, classes, plugins, errors."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.text import Text

LONGEST_LINE = 400
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")  # control, direction, half signs, breaks
_JOINERS = "\u200c\u200d"  # which Persian words and emoji are spelt with
_BLANKS = "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0"  # letters drawn as nothing


def shown(text: object, limit: int = 200) -> str:
    """Return a text as it can be shown on one line, whoever wrote it.

    Signs that move the cursor, colour the terminal, turn the direction of writing or cannot be
    seen are written as their escapes (``\\x1b``, ``\\u202e``); of a long text the middle is left
    out.

    Args:
        text: any object; its `str` is shown.
        limit: largest number of signs.

    Example:
        >>> shown("a\\x1b[31m.png")
        'a\\\\x1b[31m.png'
    """
    given = _text(text)
    if len(given) > 2 * limit:  # what lies between is left out below
        given = given[:limit] + given[-limit:]
    whole = "".join(map(_visible, given))
    if len(whole) <= limit:
        return whole
    kept = (limit - 1) // 2
    return f"{whole[: limit - 1 - kept]}…{whole[len(whole) - kept :]}"


def one_line(message: object, limit: int = LONGEST_LINE) -> str:
    """Return a message as one line of at most 400 signs, for a terminal or a log."""
    return shown(" ".join(_text(message).split()), limit)


def rich_text(text: object, limit: int = 200) -> Text:
    """Return a text for rich's tables, titles and bars, which would read brackets in it as styles.

    Args:
        text: any object; see `shown`.
        limit: largest number of signs.
    """
    from rich.text import Text

    return Text(shown(text, limit))


def as_call(thing: object, parameters: Mapping[str, object]) -> str:
    """Return how a thing of that class and those parameters could be made, for a `repr`.

    Args:
        thing: instance whose class is named.
        parameters: its parameters by name.

    Example:
        >>> as_call(Exception(), {"factor": 0.5})
        'Exception(factor=0.5)'
    """
    given = ", ".join(f"{name}={value!r}" for name, value in parameters.items())
    return f"{type(thing).__name__}({shown(given, LONGEST_LINE)})"


def _text(text: object) -> str:
    try:
        return str(text)
    except Exception as error:  # noqa: BLE001  # a stranger's error may not even say what it is
        return f"{type(text).__name__}, which raised {type(error).__name__} when it was to be shown"


def _visible(sign: str) -> str:
    if sign in _JOINERS or (unicodedata.category(sign) not in _HIDDEN and sign not in _BLANKS):
        return sign
    return sign.encode("unicode_escape").decode("ascii")
