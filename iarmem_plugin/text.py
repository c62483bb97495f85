"""Text that others wrote, as text that can be shown: names of files, classes, plugins, errors."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

LONGEST_LINE = 400
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")  # control, direction, surrogates, separators


def shown(text: object, limit: int = 200) -> str:
    """Return a text as it can be shown on one line, whoever wrote it.

    Signs that move the cursor, colour the terminal or turn the direction of writing are written
    as their escapes (``\\x1b``, ``\\u202e``); of a long text the middle is left out.

    Args:
        text: any object; its `str` is shown.
        limit: largest number of signs.

    Example:
        >>> shown("a\\x1b[31m.png")
        'a\\\\x1b[31m.png'
    """
    written = str(text)
    if len(written) > 2 * limit:  # of which the ends alone will be seen
        written = written[:limit] + written[-limit:]
    whole = "".join(map(_visible, written))
    if len(whole) <= limit:
        return whole
    kept = (limit - 1) // 2
    return f"{whole[: limit - 1 - kept]}…{whole[len(whole) - kept :]}"


def one_line(message: object) -> str:
    """Return a message as one line of at most 400 signs, for a terminal or a log."""
    return shown(" ".join(str(message).split()), LONGEST_LINE)


def rich_text(text: object, limit: int = 200) -> Text:
    """Return a text for rich's tables, titles and bars, which would read brackets in it as styles.

    Args:
        text: any object; see `shown`.
        limit: largest number of signs.
    """
    from rich.text import Text

    return Text(shown(text, limit))


def _visible(sign: str) -> str:
    if unicodedata.category(sign) not in _HIDDEN or sign == "\u200d":
        return sign
    return sign.encode("unicode_escape").decode("ascii")
