"""Text files that name pictures, one a line: read, and written so that they read back equal."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from iarmem_plugin.errors import InputError
from iarmem_plugin.text import shown
from iarmem_plugin.untrusted import read_text

LARGEST_LIST = 2**30  # bytes; ImageNet's has 45 million
_LABEL = re.compile(r"\s*([0-9]{1,18}\s*)?")
_OTHER_SEPARATOR = re.compile(r"(.*\.\w+)[ ,;:|]+[0-9]{1,18}")


class Line(NamedTuple):
    """What a list says of one picture; None where it says nothing."""

    label: int | None = None
    caption: str | None = None


def read_list(file: Path, root: Path) -> dict[str, Line]:
    """Read a text file that names a picture a line, and after tabs its label and caption.

    Empty lines and lines that begin with ``#`` are left out.

    Args:
        file: list of the paths, in UTF-8.
        root: folder that the paths are in, and relative to.

    Returns:
        label and caption of each path, in the order of the file; paths are relative to the root.

    Raises:
        InputError: naming the line that cannot be used.
    """
    found: dict[str, Line] = {}
    lines = read_text(file, "the list", limit=LARGEST_LIST).split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        written, label, caption = [*line.split("\t", 2), "", ""][:3]
        path = _relative(written.strip(), root)
        if path is None or path in found or not _LABEL.fullmatch(label):
            raise InputError(
                f"line {number} of the list {shown(file, 80)} is '{shown(line, 80)}'; expected a "
                f"path inside {shown(root, 80)}, named once, and after it nothing or a tab and a "
                "class index"
            )
        if not label:
            _refuse_other_separator(number, path, file, root)
        found[path] = Line(int(label) if label.strip() else None, caption.strip() or None)
    if not found:
        raise InputError(f"the list {shown(file)} names no pictures; write one path a line")
    return found


def list_text(
    paths: Sequence[str], labels: Sequence[int] | None, captions: Sequence[str] | None = None
) -> str:
    """Return the text of a list: a path a line, and after tabs its label and caption.

    A path that would be read as something else, such as ``#other/a.png``, is written as
    ``./#other/a.png``.

    Args:
        paths: path of each picture, relative.
        labels: class of each picture; None leaves them out.
        captions: caption of each picture; None leaves them out.

    Raises:
        InputError: if a path is there twice.
    """
    if len(set(paths)) != len(paths):
        twice = Counter(paths).most_common(1)[0][0]
        raise InputError(
            f"picture '{shown(twice, 100)}' is there twice, as in joined lists, and a list names "
            "each once; write each part by itself"
        )
    columns: list[Iterable[object]] = [map(_written, paths)]
    if labels is not None or captions is not None:
        columns.append([""] * len(paths) if labels is None else labels)
    if captions is not None:
        columns.append(captions)
    return "".join("\t".join(map(str, line)) + "\n" for line in zip(*columns, strict=True))


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


def refuse_odd_captions(captions: Sequence[str], paths: Sequence[str]) -> None:
    """Refuse captions that a list of pictures, one a line, could not hold, and empty ones.

    Args:
        captions: caption of each picture.
        paths: name of each picture.

    Raises:
        InputError: naming the first picture, or if there is not one caption for each.
    """
    if len(captions) != len(paths):
        raise InputError(
            f"{len(captions)} captions and {len(paths)} pictures were given; give one for each"
        )
    for caption, path in zip(captions, paths, strict=True):
        if problem := _odd(caption):
            raise InputError(
                f"the caption of picture '{shown(path, 100)}' {problem}; write a text of one line"
            )


def _odd(caption: str) -> str:
    if not isinstance(caption, str):
        return f"is of type {type(caption).__name__}"
    if not caption or caption != caption.strip():
        return "begins or ends with a blank" if caption.strip() else "is empty"
    if not caption.isprintable() and (set(caption) & set("\0\t\r\n") or not _is_text(caption)):
        return f"'{shown(caption, 60)}' has a tab, a new line, or bytes that are not UTF-8 or null"
    return ""


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
