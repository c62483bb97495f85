"""Small files that others wrote: read whole, within limits, or refused in one line."""

from __future__ import annotations

import codecs
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

from iarmem_plugin.errors import InputError
from iarmem_plugin.text import shown

LIMIT = 64 * 2**20
MAX_DEPTH = 100
MAX_DIGITS = 100
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16's, which it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

_BUT_BRACKETS = re.compile(  # never goes back, so its time grows with the text and no faster
    r'(?:[^\[\]{}"]++|"[^"\\]*+(?:\\.[^"\\]*+)*+"?)++', re.DOTALL
)
_STEPS = {"[": 1, "{": 1, "]": -1, "}": -1}

Pairs = Callable[[list[tuple[str, Any]]], Any]


def read_small(path: Path, what: str, *, limit: int = LIMIT) -> bytes:
    """Read a whole file that is a file, and not larger than it should be.

    Args:
        path: file to read; a link to a file will do.
        what: what the file is to the user, such as "the classes file".
        limit: largest number of bytes.

    Raises:
        InputError: it is not there, not a file (a folder, device or pipe), or too large.
    """
    try:
        data = _content(path, limit)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{what} {shown(path)} cannot be read: {reason}") from error
    if data is None:
        raise InputError(f"{what} {shown(path)} is not a file")
    if len(data) > limit:
        raise InputError(f"{what} {shown(path)} is larger than {limit / 1e6:.0f} MB")
    return data


def read_text(path: Path, what: str, *, limit: int = LIMIT) -> str:
    """Read a text file, whatever its byte order mark and its ends of lines.

    Raises:
        InputError: see `read_small`, and `decode`.
    """
    return decode(read_small(path, what, limit=limit), f"{what} {shown(path)}")


def decode(data: bytes, name: str) -> str:
    """Return the text of some bytes; a byte order mark goes, and every end of a line is a LF.

    Raises:
        InputError: they are not text in UTF-8, nor marked as UTF-16 or UTF-32; or have null bytes.
    """
    marked = (encoding for mark, encoding in _MARKS.items() if data.startswith(mark))
    encoding = next(marked, "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        kind = encoding.removesuffix("-sig").upper()
        raise InputError(f"{name} is not text in {kind} (byte {error.start})") from error
    if "\0" in text:
        raise InputError(f"{name} is not text: it has null bytes; save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path, what: str, *, pairs: Pairs | None = None, limit: int = LIMIT) -> Any:
    """Read a file of JSON; see `parse_json`."""
    data = read_small(path, what, limit=limit)
    return parse_json(data, f"{what} {shown(path)}", pairs=pairs)


def parse_json(data: bytes | str, name: str, *, pairs: Pairs | None = None) -> Any:
    """Return the value of a JSON text.

    Args:
        data: JSON text; bytes may begin with a byte order mark.
        name: name of the text, for messages.
        pairs: what is made of the names and values of an object; by default a dictionary, and a
            name given twice is refused.

    Raises:
        InputError: it is not JSON, nested too deep, or has NaN, infinity or an endless number.
    """
    text = decode(data, name) if isinstance(data, bytes) else data
    hooks: dict[str, Any] = {"parse_int": _int, "parse_constant": _refuse, "parse_float": _float}
    try:
        _check_depth(text)
        return json.loads(text, object_pairs_hook=pairs or _unique, **hooks)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else error
        raise InputError(f"{name} is not JSON: {shown(reason)}") from error


def _content(path: Path, limit: int) -> bytes | None:
    """Return a file's bytes, and one more than the limit if it has more; None if it is no file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would wait for a writer
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(limit + 1)
    finally:
        os.close(descriptor)


def _check_depth(text: str) -> None:
    """Refuse what is nested too deep, before anything is made of it."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    brackets = _BUT_BRACKETS.sub("", text)
    if max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"it has the name '{shown(twice, 60)}' twice in one object")
    return table


def _int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if len(digits) > MAX_DIGITS or abs(number) == float("inf"):
        raise ValueError(f"{shown(digits, 20)} is not a number that fits")
    return number


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not a value of JSON")
