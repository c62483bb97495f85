"""Small files that others wrote: read whole, within limits, or refused in one line."""

from __future__ import annotations

import codecs
import json
import os
import stat
from collections.abc import Callable
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
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would wait for a writer
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InputError(f"{what} {shown(path)} is not a file")
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{what} {shown(path)} cannot be read: {reason}") from error
    if len(data) > limit:
        raise InputError(f"{what} {shown(path)} is larger than {limit / 1e6:.0f} MB")
    return data


def read_text(path: Path, what: str, *, limit: int = LIMIT) -> str:
    """Read a text file, whatever its byte order mark and its ends of lines.

    Raises:
        InputError: see `read_small`; or it is not text in UTF-8, nor marked as UTF-16 or UTF-32.
    """
    return decode(read_small(path, what, limit=limit), f"{what} {shown(path)}")


def decode(data: bytes, name: str) -> str:
    """Return the text of some bytes; a byte order mark goes, and every end of a line is a LF.

    Raises:
        InputError: they are not text in UTF-8, nor marked as UTF-16 or UTF-32.
    """
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not text in UTF-8 (byte {error.start})") from error
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
        pairs: what is made of the names and values of an object; a dictionary by default.

    Raises:
        InputError: it is not JSON, nested too deep, or has NaN, infinity or an endless number.
    """
    text = decode(data, name) if isinstance(data, bytes) else data
    hooks: dict[str, Any] = {"parse_int": _int, "parse_constant": _refuse, "parse_float": _float}
    try:
        _check_depth(text)
        return json.loads(text, object_pairs_hook=pairs, **hooks)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else error
        raise InputError(f"{name} is not JSON: {reason}") from error


def _check_depth(text: str) -> None:
    """Refuse what is nested too deep; brackets in strings count, too, where there are so many."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth, quoted, escaped = 0, False, False
    for sign in text:
        if quoted:
            quoted, escaped = escaped or sign != '"', sign == "\\" and not escaped
        elif sign == '"':
            quoted = True
        else:
            depth += (sign in "[{") - (sign in "]}")
            if depth > MAX_DEPTH:
                raise ValueError(f"it is nested more than {MAX_DEPTH} deep")


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
