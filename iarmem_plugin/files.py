"""Results on disk: whether they can be written where the user wants it, and all of them or none.

A set of files is written in three steps. All of them are written under new names in the folder;
a journal that says what is to be renamed is put in its place, which is the moment from which the
new set counts; then the files are renamed, and the journal goes. Before that moment the old set is
whole. After it, whoever reads or writes the folder next finishes what a killed process began.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from iarmem_plugin.disk import DISK_FULL_ERRNOS as DISK_FULL_ERRNOS
from iarmem_plugin.disk import (
    RUNNING,
    TEMPORARY,
    Content,
    locked,
    named_errors,
    new_name,
    put,
    try_to_write,
)
from iarmem_plugin.disk import Streamed as Streamed
from iarmem_plugin.disk import alone as alone
from iarmem_plugin.disk import fsync as fsync
from iarmem_plugin.errors import DiskFullError, InputError
from iarmem_plugin.text import shown
from iarmem_plugin.untrusted import parse_json, read_small

JOURNAL = ".iarmem-journal"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_LONGEST_NAME = 255  # bytes, on every file system of today
_YOUNG_SECONDS = 24 * 60 * 60


def looks_like_url(path: str | Path) -> bool:
    """Tell whether a path begins as a URL does, such as ``s3://bucket`` or ``file:/x``."""
    return _SCHEME.match(os.fspath(path)) is not None


def check_writable(path: Path) -> None:
    """Refuse a path that cannot be made, by trying it: a file is made beside it, and let go.

    Raises:
        InputError: it is a URL, one of its parents is a file, or may not be written to, or its
            name is too long; or it is a link that leads nowhere.
    """
    if looks_like_url(path):
        raise InputError(
            f"{path} looks like a URL, and results are written to folders; name a folder"
        )
    try:
        try_to_write(_nearest_folder(path))
        if path.is_symlink() and not path.exists():
            raise InputError(f"{path} is a link to what is not there; name another place")
        if any(len(os.fsencode(part)) > _LONGEST_NAME for part in path.parts):
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # a null byte, links in a circle
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"{shown(path)} cannot be made: it may not be written to ({reason}); name another place"
        ) from error


def check_results(folder: Path, names: Iterable[str]) -> None:
    """Refuse a folder into which `write_results` cannot write files of these names.

    What a killed process began to write there is finished first.

    Raises:
        InputError: the folder cannot be made or written to, or a name in it is taken.
    """
    check_writable(folder)
    if os.path.lexists(folder) and not folder.is_dir():
        raise InputError(f"{folder} is a file, and is not overwritten; name a folder")
    finish_writing(folder)
    for name in names:
        _check_name(folder, name)


def check_file(path: Path) -> None:
    """Refuse a path at which no file can be made; its folder may be missing.

    Raises:
        InputError: it is a folder, one of its parents is a file, or it may not be written to.
    """
    check_writable(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file")


def check_space(folder: Path, size: int) -> None:
    """Refuse a folder with too little room; it may be missing, but not its nearest parent.

    Args:
        folder: folder that is to be written.
        size: number of bytes that are needed.

    Raises:
        DiskFullError: there is less.
    """
    free = shutil.disk_usage(_nearest_folder(folder)).free
    if free < size:
        raise DiskFullError(
            errno.ENOSPC,
            f"{folder} needs about {size / 1e6:.1f} MB, and {free / 1e6:.1f} MB are free; make "
            "room, or name another place",
        )


def write_whole(path: Path, content: Content) -> None:
    """Write a file as a whole or not at all; what was there before is replaced, or stays.

    Raises:
        InputError: there is a folder of that name.
        DiskFullError: there is no room.
    """
    write_results(path.parent, {path.name: content})


def write_results(
    folder: Path, contents: Mapping[str, Content], *, remove: Collection[str] = ()
) -> None:
    """Write a set of files into a folder: all of them, or none.

    Other files in the folder are left alone; a file that is replaced keeps its mode. A process
    that is killed at any moment leaves the old set or the new one; see `finish_writing`.

    Args:
        folder: folder that is written; made where it is missing.
        contents: content of each file by its name, written in this order; ``"figures/a.png"`` lies
            in a folder inside.
        remove: names of files of an earlier set that go with it.

    Raises:
        InputError: the folder may not be written to, or a name is taken by a folder or a link.
        DiskFullError: there is no room; the old set is as it was, or the new one is whole once
            there is room.
    """
    size = sum(map(_size, contents.values()))
    with named_errors(folder, size):
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder) as alone:
            _finish(folder, alone)
            gone = [one for one in remove if one not in contents and _is_there(folder / one)]
            for name in (*contents, *gone):
                _check_name(folder, name)
            _write(folder, contents, gone)
            _finish(folder, alone)


def _size(content: Content) -> int:
    return content.size if isinstance(content, Streamed) else memoryview(content).nbytes


def finish_writing(folder: Path) -> None:
    """Finish what a killed process began to write into a folder; call it before reading a set.

    Raises:
        InputError: the journal is damaged, or the folder may not be written to.
    """
    if not _is_there(folder / JOURNAL):
        return
    try:
        with locked(folder) as alone:
            _finish(folder, alone)
    except OSError as error:
        raise InputError(
            f"writing {folder} was begun and not finished, and cannot be finished here "
            f"({error.strerror}); open it once where it may be written to"
        ) from error


def clean(folder: Path) -> None:
    """Finish what a killed process began to write into a folder, and delete what it left behind."""
    if any(is_ours(name) for name in os.listdir(folder)):
        with locked(folder) as alone:
            _finish(folder, alone)


def is_ours(name: str) -> bool:
    """Tell whether a name in a folder is that of a journal, a lock, or a file not yet renamed."""
    return name in (JOURNAL, RUNNING) or TEMPORARY.fullmatch(name) is not None


def _write(folder: Path, contents: Mapping[str, Content], remove: Collection[str]) -> None:
    """Write all contents, and name them in a journal; up to that moment nothing has happened."""
    names = {new_name(): name for name in contents}
    journal = new_name()
    inside = {folder / one.partition("/")[0] for one in contents if "/" in one}
    new = [one for one in inside if not one.exists()]
    try:
        for temporary, name in names.items():
            put(folder / temporary, contents[name], mode_of=folder / name)
        if len(names) == 1 and not remove and not inside:  # a rename by itself is all or nothing
            (folder / next(iter(names))).replace(folder / next(iter(contents)))
            fsync(folder)
            return
        for one in new:
            one.mkdir()
        put(folder / journal, json.dumps({"rename": names, "remove": list(remove)}).encode())
        fsync(folder)
        (folder / journal).replace(folder / JOURNAL)
    except BaseException:
        _undo(folder, (*names, journal), new)
        raise


def _undo(folder: Path, temporaries: Iterable[str], new: Iterable[Path]) -> None:
    """Leave a folder as if nothing had happened, unless the journal is in its place already."""
    if _is_there(folder / JOURNAL):
        return
    for name in temporaries:
        with suppress(OSError):
            (folder / name).unlink()
    for one in new:
        with suppress(OSError):
            one.rmdir()


def _finish(folder: Path, alone: bool) -> None:
    """Do what a journal says, and delete files that were written without one.

    Where processes cannot be kept apart, a young file may be another's, and stays.
    """
    if _is_there(folder / JOURNAL):
        rename, remove = _read_journal(folder)
        fsync(folder)
        _follow(folder, rename, remove)
        (folder / JOURNAL).unlink(missing_ok=True)
        fsync(folder)
    for name in filter(TEMPORARY.fullmatch, os.listdir(folder)):
        with suppress(FileNotFoundError, IsADirectoryError):
            if alone or time.time() - (folder / name).lstat().st_mtime > _YOUNG_SECONDS:
                (folder / name).unlink()


def _follow(folder: Path, rename: Mapping[str, str], remove: Collection[str]) -> None:
    for temporary, name in rename.items():
        if _is_there(folder / temporary):  # else it was renamed before
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / temporary).replace(folder / name)
    for name in remove:
        (folder / name).unlink(missing_ok=True)
    for one in {folder, *((folder / name).parent for name in (*rename.values(), *remove))}:
        with suppress(FileNotFoundError):
            fsync(one)


def _read_journal(folder: Path) -> tuple[dict[str, str], list[str]]:
    place = folder / JOURNAL
    damaged = InputError(f"{place} is damaged; delete it, and make the results anew")
    if place.is_symlink():
        raise damaged
    found = parse_json(read_small(place, "the journal"), str(place))
    try:
        rename, remove = dict(found["rename"]), list(found["remove"])
        whole = all(TEMPORARY.fullmatch(name) for name in rename)
    except (TypeError, KeyError, ValueError):
        raise damaged from None
    if not whole:
        raise damaged
    for name in (*rename.values(), *remove):
        _check_name(folder, name)
    return rename, remove


def _check_name(folder: Path, name: object) -> None:
    """Refuse what is not the name of a file in the folder, or in a real folder inside it."""
    parts = name.split("/") if isinstance(name, str) else []
    outside = any(part in ("", ".", "..") or not _is_name(part) for part in parts)
    if not 1 <= len(parts) <= 2 or outside:
        raise InputError(f"{name!r} does not name a file in {folder}")
    place = folder.joinpath(*parts)
    if place.is_dir():
        raise InputError(f"{place} is a folder, where a file is to be written; move it")
    if len(parts) == 2:
        _check_inside(folder, place.parent)


def _check_inside(folder: Path, inside: Path) -> None:
    """Refuse a folder inside another into which no file of that other can be renamed."""
    try:
        found = inside.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(found.st_mode):
        raise InputError(f"{inside} is a file or a link, where a folder is to be written; move it")
    if found.st_dev != folder.stat().st_dev or not os.access(inside, os.W_OK | os.X_OK):
        raise InputError(f"{inside} is on another disk, or may not be written to; move it")


def _is_name(part: str) -> bool:
    try:
        return b"\0" not in os.fsencode(part)
    except UnicodeEncodeError:
        return False


def _is_there(path: Path) -> bool:
    """Tell whether there is anything of that name, a link that leads nowhere included."""
    return os.path.lexists(path)


def _nearest_folder(path: Path) -> Path:
    """Return the path, if it is a folder, or the nearest folder above it that exists."""
    target = path.resolve()
    parent = target
    while not parent.exists():
        if os.path.islink(parent):  # from Python 3.13 on, resolving leaves them as they are
            raise RuntimeError("links in a circle")
        parent = parent.parent
    if parent != target and not parent.is_dir():
        raise InputError(f"{path} cannot be made, since {parent} is a file; name another place")
    return parent if parent.is_dir() else parent.parent
