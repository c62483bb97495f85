"""Bands of tokens as a user writes them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from iarmem_plugin.errors import InputError

_SPAN = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?")


def read_bands(texts: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Read bands such as ``"first row=1-16"`` or ``"ends=1,256"``.

    Args:
        texts: a name, an equals sign, and numbers or spans of predicted tokens, from 1.

    Returns:
        the tokens of each band by its name.

    Raises:
        InputError: a text of another form, or two bands of one name.

    Example:
        >>> read_bands(["ends=1-2,256"])
        {'ends': (1, 2, 256)}
    """
    bands: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, spans = text.rpartition("=")
        name = name.strip()
        if not name or name in bands:
            raise InputError(
                f"band {text!r} has no name of its own; write NAME=TOKENS, "
                "such as 'first row=1-16', each name once"
            )
        bands[name] = tuple(token for span in spans.split(",") for token in _tokens(text, span))
    return bands


def _tokens(text: str, span: str) -> range:
    found = _SPAN.fullmatch(span.strip())
    if found is None or int(found[2] or found[1]) < int(found[1]):
        raise InputError(
            f"band {text!r} has {span.strip()!r}, which is no span of tokens; write a number or "
            "FIRST-LAST, counted from 1, with commas between them"
        )
    return range(int(found[1]), int(found[2] or found[1]) + 1)
