"""Lists of picture files: those of a folder, and those that a text file names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from iarmem_plugin.errors import InputError

PICTURE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_LABEL = re.compile(r"\s*(\d{1,18}\s*)?")


def pictures_in(root: Path) -> tuple[str, ...]:
    """Return the paths of a folder's pictures, sorted, '/'-separated and relative to it.

    Links are followed; files and folders whose name begins with a dot are left out.

    Raises:
        InputError: if it is no folder, holds none, or holds some outside any class folder.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; give a folder with one folder a class")
    paths = sorted(path.relative_to(root).as_posix() for path in _pictures(root, frozenset()))
    loose = [path for path in paths if "/" not in path]
    if loose:
        raise InputError(
            f"{root} holds pictures outside any class folder, such as {loose[0]!r}; "
            "put each picture into the folder of its class"
        )
    if not paths:
        kinds = ", ".join(sorted(PICTURE_SUFFIXES))
        raise InputError(f"{root} holds no pictures ({kinds}) in class folders")
    return tuple(paths)


def class_folders(root: Path) -> list[str]:
    """Return the names of a folder's folders, sorted; hidden ones are left out."""
    return sorted(path.name for path in root.iterdir() if path.is_dir() and path.name[0] != ".")


def read_list(file: Path, root: Path) -> dict[str, int | None]:
    """Read a text file that names a picture a line, with a label after a tab or without.

    Empty lines and lines that begin with ``#`` are left out.

    Args:
        file: the list, in UTF-8.
        root: the folder that the paths are in, and relative to.

    Returns:
        the label of each path, in the order of the file; paths are relative to the root.

    Raises:
        InputError: naming the line that cannot be used.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()  # with a byte order mark or not
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the list {file} cannot be read: {error}") from error
    found: dict[str, int | None] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        written, _, label = line.partition("\t")
        path = _relative(written.strip(), root)
        if path is None or path in found or not _LABEL.fullmatch(label):
            raise InputError(
                f"line {number} of the list {file} is {line!r}; expected a path inside {root}, "
                "named once, and after it nothing or a tab and a class index"
            )
        found[path] = int(label) if label.strip() else None
    if not found:
        raise InputError(f"the list {file} names no pictures; write one path a line")
    return found


def _relative(written: str, root: Path) -> str | None:
    path = os.path.normpath(root / written)
    relative = PurePosixPath(Path(os.path.relpath(path, os.path.normpath(root))).as_posix())
    return None if relative.parts[:1] in ((), ("..",)) else str(relative)


def _pictures(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    here = folder.resolve()
    if here in above:  # a link that leads back
        return
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(f"folder {folder} cannot be listed: {error}") from error
    for entry in entries:
        if entry.is_dir():
            yield from _pictures(entry, above | {here})
        elif entry.suffix.lower() in PICTURE_SUFFIXES and (entry.is_file() or entry.is_symlink()):
            yield entry  # a link to nothing is listed, and refused like a corrupt picture
