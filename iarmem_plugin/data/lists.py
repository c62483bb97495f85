"""Text files that name pictures, one a line: read, and written so that they read back equal."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from iarmem_plugin.errors import InputError
from iarmem_plugin.text import shown
from iarmem_plugin.untrusted import read_text

LARGEST_LIST = 2**30  # bytes; ImageNet's has 45 million
_LABEL = re.compile(r"\s*([0-9]{1,18}\s*)?")
_OTHER_SEPARATOR = re.compile(r"(.*\.\w+)[ ,;:|]+[0-9]{1,18}")


def read_list(file: Path, root: Path) -> dict[str, int | None]:
    """Read a text file that names a picture a line, with a label after a tab or without.

    Empty lines and lines that begin with ``#`` are left out.

    Args:
        file: list of the paths, in UTF-8.
        root: folder that the paths are in, and relative to.

    Returns:
        the label of each path, in the order of the file; paths are relative to the root.

    Raises:
        InputError: naming the line that cannot be used.
    """
    found: dict[str, int | None] = {}
    lines = read_text(file, "the list", limit=LARGEST_LIST).split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        written, _, label = line.partition("\t")
        path = _relative(written.strip(), root)
        if path is None or path in found or not _LABEL.fullmatch(label):
            raise InputError(
                f"line {number} of the list {shown(file, 80)} is '{shown(line, 80)}'; expected a "
                f"path inside {shown(root, 80)}, named once, and after it nothing or a tab and a "
                "class index"
            )
        if not label:
            _refuse_other_separator(number, path, file, root)
        found[path] = int(label) if label.strip() else None
    if not found:
        raise InputError(f"the list {shown(file)} names no pictures; write one path a line")
    return found


def list_text(paths: Sequence[str], labels: Iterable[int]) -> str:
    """Return the text of a list: a path a line, and its label after a tab.

    A path that would be read as something else, such as ``#other/a.png``, is written as
    ``./#other/a.png``.

    Args:
        paths: path of each picture, relative.
        labels: class of each picture.

    Raises:
        InputError: if a path is there twice.
    """
    if len(set(paths)) != len(paths):
        twice = Counter(paths).most_common(1)[0][0]
        raise InputError(
            f"picture '{shown(twice, 100)}' is there twice, as in joined lists, and a list names "
            "each once; write each part by itself"
        )
    pairs = zip(paths, labels, strict=True)
    return "".join(f"{_written(path)}\t{label}\n" for path, label in pairs)


def refuse_unlistable(paths: Sequence[str]) -> None:
    """Refuse names that a list of pictures, one a line, could not hold.

    Args:
        paths: name of each picture.

    Raises:
        InputError: naming the first.
    """
    for path in paths:
        if not path.isprintable() and (set(path) & set("\0\t\r\n") or not _is_text(path)):
            raise InputError(
                f"the name of picture '{shown(path, 100)}' has a tab, a new line, or bytes that "
                "are not UTF-8 or null; rename it"
            )


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _written(path: str) -> str:
    """Return a path that is read as this one, though blanks at its ends are taken off."""
    if path[0] not in "#\ufeff" and path == path.strip():
        return path
    return f"./{path}" if path == path.rstrip() else f"./{path}/."


def _relative(written: str, root: Path) -> str | None:
    if "\0" in written:
        return None
    path = os.path.normpath(root / written)
    relative = PurePosixPath(Path(os.path.relpath(path, os.path.normpath(root))).as_posix())
    return None if relative.parts[:1] in ((), ("..",)) else str(relative)


def _refuse_other_separator(number: int, path: str, file: Path, root: Path) -> None:
    match = _OTHER_SEPARATOR.fullmatch(path)
    if match is not None and not os.path.lexists(root / path):
        raise InputError(
            f"line {number} of the list {shown(file, 100)} is '{shown(path, 100)}'; a label is "
            "written after a tab, not after a blank or another sign"
        )
