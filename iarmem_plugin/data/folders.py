"""A folder with one folder of pictures a class: what is a picture, a class, or a left-over."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from iarmem_plugin.errors import InputError
from iarmem_plugin.text import shown

_NAMES = """
    apng avif avifs blp bmp bw cur dcx dds dib fit fits flc fli ftc ftu gbr gif icb icns ico iim im
    j2c j2k jfif jp2 jpc jpe jpeg jpf jpg jpx mpo msp pbm pcd pcx pfm pgm png pnm ppm psd pxr qoi
    ras rgb rgba sgi tga tif tiff vda vst webp xbm xpm
"""
PICTURE_SUFFIXES = frozenset(f".{name}" for name in _NAMES.split())
"""What Pillow reads by itself; a build that lacks a format refuses such a file by its name."""

NOT_PICTURES = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "PDF", "WMF"})
"""Pillow's formats of which it knows the name alone, or for which it asks another program."""

LEFT_OVERS = frozenset(
    {
        *("__macosx", "icon\r", "temporary items", "network trash folder"),  # macOS
        *("$recycle.bin", "recycler", "recycled", "system volume information", "found.000"),
        *("thumbs.db", "ehthumbs.db", "desktop.ini"),  # Windows
        *("@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot"),  # NAS
        *("lost+found", "__pycache__"),
    }
)
"""Names, in small letters, that systems give to what is neither a class nor a picture."""

_SHOWN = 5  # names in a message


@dataclass(frozen=True, slots=True)
class Listing:
    """What lies in a folder of class folders.

    Attributes:
        pictures: paths relative to the folder, '/'-separated, sorted.
        folders: names of the class folders, sorted.
        left_out: number of the files in class folders that are no pictures, by suffix.
        texts: paths of the text files in which captions may stand.
    """

    pictures: tuple[str, ...]
    folders: tuple[str, ...]
    left_out: Counter[str]
    texts: frozenset[str] = frozenset()

    def notices(self) -> list[str]:
        """Return what the user should know: files and folders that give no pictures."""
        left, empty = self.left_out, empty_folders(self.folders, self.pictures)
        found = []
        if left:
            found.append(f"{_files(left)}, as Pillow reads no pictures with these suffixes")
        if empty:
            found.append(f"{len(empty)} of {len(self.folders)} class folders hold no pictures: ")
            found[-1] += some(empty)
        return found


def list_folder(root: Path, *, labelled: bool = True) -> Listing:
    """List the pictures of a folder with one folder for each class, or of any folder.

    Links are followed. What begins with a dot, and what systems leave behind (`LEFT_OVERS`), is
    neither a class nor a picture.

    Args:
        root: folder with one folder for each class.
        labelled: whether the folders in it are classes; otherwise pictures may lie anywhere.

    Raises:
        InputError: if it is not a folder, holds no pictures, or holds some outside any class
            folder.
    """
    if not root.is_dir():
        raise InputError(f"{shown(root)} is not a folder; give a folder with one folder a class")
    suffixes, pictures, others = _suffixes(), [], []
    for path in _walk(root):
        if os.path.splitext(path)[1].lower() in suffixes:
            pictures.append(path)
        elif "/" in path or not labelled:
            others.append(path)
    texts = frozenset(map(text_beside, pictures)).intersection(others)
    left_out = Counter(os.path.splitext(one)[1].lower() for one in others if one not in texts)
    _refuse_useless(root, pictures, left_out, labelled=labelled)
    folders = tuple(class_folders(root)) if labelled else ()
    return Listing(tuple(sorted(pictures)), folders, left_out, texts)


def text_beside(picture: str) -> str:
    """Return the path of the text file in which a picture's caption may stand."""
    return f"{os.path.splitext(picture)[0]}.txt"


def texts_beside(root: Path, pictures: Iterable[str]) -> frozenset[str]:
    """Return the paths of the text files that are beside some pictures of a folder."""
    wanted = frozenset(map(text_beside, pictures))
    found = set()
    for folder in {os.path.dirname(path) for path in wanted}:
        with suppress(OSError), os.scandir(root / folder) as entries:
            found |= {os.path.join(folder, one.name) for one in entries}
    return wanted & found


def class_folders(root: Path) -> list[str]:
    """Return the names of a folder's class folders, sorted."""
    return sorted(entry.name for entry in _entries(os.fspath(root)) if _is_folder(entry))


def empty_folders(folders: Iterable[str], pictures: Iterable[str]) -> list[str]:
    """Return the class folders in which there are no pictures."""
    used = {path.partition("/")[0] for path in pictures}
    return [name for name in folders if name not in used]


def some(names: list[str]) -> str:
    """Return the first few of some names, as text for a message."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(f"'{shown(name, 30)}'" for name in names[:_SHOWN]) + more


def _refuse_useless(
    root: Path, pictures: list[str], left_out: Counter[str], *, labelled: bool
) -> None:
    loose = min((path for path in pictures if "/" not in path), default=None)
    if loose is not None and labelled:
        raise InputError(
            f"{shown(root)} holds pictures outside any class folder, such as "
            f"'{shown(loose, 60)}'; put each picture into the folder of its class"
        )
    if not pictures:
        others = f"; {_files(left_out)}" if left_out else ""
        if not labelled:
            raise InputError(f"{shown(root)} holds no pictures, such as .png or .jpg{others}")
        raise InputError(
            f"{shown(root)} holds no pictures in class folders; give a folder with one folder a "
            f"class, and pictures such as .png, .jpg or .webp in them{others}"
        )


def _files(left_out: Counter[str]) -> str:
    kinds = [f"{shown(suffix, 15) or 'no suffix'} ({n})" for suffix, n in left_out.most_common()]
    more = f" and {len(kinds) - _SHOWN} more" if len(kinds) > _SHOWN else ""
    count = left_out.total()
    are = "files are" if count > 1 else "file is"
    return f"{count} {are} left out: {', '.join(kinds[:_SHOWN])}{more}"


def _suffixes() -> frozenset[str]:
    """Return the suffixes of pictures, those of readers that were added to Pillow included."""
    added = Image.EXTENSION.items()
    return PICTURE_SUFFIXES | {
        suffix for suffix, name in added if name in Image.OPEN and name not in NOT_PICTURES
    }


def _walk(root: Path) -> Iterator[str]:
    """Give the paths of all files below a folder, relative to it."""
    top = os.path.join(root, "")
    waiting: list[tuple[str, frozenset[str]]] = [(os.fspath(root), frozenset())]
    while waiting:
        folder, above = waiting.pop()
        here = os.path.realpath(folder)
        if here in above:  # a link that leads back
            continue
        for entry in _entries(folder):
            if _is_folder(entry):
                waiting.append((entry.path, above | {here}))
            else:  # a link to nothing is a file, too, and refused like a corrupt picture
                yield entry.path.removeprefix(top).replace(os.sep, "/")


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [one for one in entries if one.name[0] != "." and not _is_left_over(one.name)]
    except OSError as error:
        raise InputError(f"folder {shown(folder)} cannot be listed: {error.strerror}") from error


def _is_left_over(name: str) -> bool:
    return name.lower() in LEFT_OVERS


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself, or to what may not be looked at
        return False
