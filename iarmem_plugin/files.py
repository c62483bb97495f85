"""Results on disk: whether they can be written where the user wants it, and all of them or none.

A set of files is written in three steps. All of them are written under new names in the folder;
a journal that says what is to be renamed is put in its place, which is the moment from which the
new set counts; then the files are renamed, and the journal goes. Before that moment the old set is
whole. After it, whoever reads or writes the folder next finishes what a killed process began.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from iarmem_plugin.errors import DiskFullError, InputError
from iarmem_plugin.text import shown
from iarmem_plugin.untrusted import parse_json, read_small

DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
JOURNAL = ".iarmem-journal"
_TEMPORARY = re.compile(r"\.iarmem-[0-9a-f]{16}\.partial")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_LOCK_SECONDS = 60

Content = bytes | bytearray | memoryview


def looks_like_url(path: str | Path) -> bool:
    """Tell whether a path begins as a URL does, such as ``s3://bucket`` or ``file:/x``."""
    return _SCHEME.match(os.fspath(path)) is not None


def check_writable(path: Path) -> None:
    """Refuse a path that cannot be made, by trying it: a file is made beside it, and deleted.

    Raises:
        InputError: it is a URL, one of its parents is a file, or may not be written to, or its
            name is too long.
    """
    if looks_like_url(path):
        raise InputError(
            f"{path} looks like a URL, and results are written to folders; name a folder"
        )
    try:
        parent = _nearest_folder(path)
        descriptor, trial = _create(parent)
        os.close(descriptor)
        trial.unlink()
        with suppress(FileNotFoundError):
            path.lstat()  # the name may be too long
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"{shown(path)} cannot be made: it may not be written to ({reason}); name another place"
        ) from error


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
        contents: content of each file by its name; ``"figures/a.png"`` lies in a folder inside.
        remove: names of files of an earlier set that go with it.

    Raises:
        InputError: a name is taken by a folder, or the folder by a link that leads outside.
        DiskFullError: there is no room; the old set is as it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    gone = [name for name in remove if name not in contents]
    for name in (*contents, *gone):
        _check_name(folder, name)
    size = sum(memoryview(content).nbytes for content in contents.values())
    with _locked(folder), _room_for(folder, size):
        _finish(folder)
        _write(folder, contents, gone)


def finish_writing(folder: Path) -> None:
    """Finish what a killed process began to write into a folder; call it before reading a set.

    Raises:
        InputError: the journal is damaged, or the folder may not be written to.
    """
    if not os.path.lexists(folder / JOURNAL):
        return
    try:
        with _locked(folder):
            _finish(folder)
    except OSError as error:
        raise InputError(
            f"writing {folder} was begun and not finished, and cannot be finished here "
            f"({error.strerror}); open it once where it may be written to"
        ) from error


def is_ours(name: str) -> bool:
    """Tell whether a name in a folder is that of a journal or of a file not yet renamed."""
    return name == JOURNAL or _TEMPORARY.fullmatch(name) is not None


def fsync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(folder: Path, contents: Mapping[str, Content], remove: Collection[str]) -> None:
    made: list[Path] = []
    try:
        for name, content in contents.items():
            made.append(_temporary(folder, content, mode_of=folder / name))
        if len(contents) == 1 and not remove:  # one rename is all or nothing by itself
            made[0].replace(folder / next(iter(contents)))
            fsync(folder)
            return
        names = {one.name: name for one, name in zip(made, contents, strict=True)}
        journal = json.dumps({"rename": names, "remove": list(remove)}).encode()
        made.append(_temporary(folder, journal))
        fsync(folder)
        made[-1].replace(folder / JOURNAL)
        made.clear()
    finally:  # before the journal is in its place, as if nothing had happened
        for one in made:
            one.unlink(missing_ok=True)
    _finish(folder)


def _finish(folder: Path) -> None:
    """Do what a journal says, and delete files that were written without one."""
    if os.path.lexists(folder / JOURNAL):
        fsync(folder)
        _follow(folder, *_read_journal(folder))
        fsync(folder)
        (folder / JOURNAL).unlink()
        fsync(folder)
    for entry in list(os.scandir(folder)):
        if _TEMPORARY.fullmatch(entry.name) and not entry.is_dir(follow_symlinks=False):
            os.unlink(entry.path)


def _follow(folder: Path, rename: Mapping[str, str], remove: Collection[str]) -> None:
    for temporary, name in rename.items():
        if os.path.lexists(folder / temporary):  # else it was renamed before
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / temporary).replace(folder / name)
    for name in remove:
        (folder / name).unlink(missing_ok=True)


def _read_journal(folder: Path) -> tuple[dict[str, str], list[str]]:
    place = folder / JOURNAL
    found = parse_json(read_small(place, "the journal"), str(place))
    try:
        rename, remove = dict(found["rename"]), list(found["remove"])
        whole = all(_TEMPORARY.fullmatch(name) for name in rename)
        names = (*rename.values(), *remove)
    except (TypeError, KeyError, ValueError):
        whole, names = False, ()
    if not whole:
        raise InputError(f"{place} is damaged; delete it, and make the results anew")
    for name in names:
        _check_name(folder, name)
    return rename, remove


def _check_name(folder: Path, name: str) -> None:
    """Refuse what is not the name of a file in the folder, or in a real folder inside it."""
    parts = name.split("/")
    if not 1 <= len(parts) <= 2 or any(part in ("", ".", "..") for part in parts):
        raise InputError(f"{name!r} does not name a file in {folder}")
    if (folder / name).is_dir():
        raise InputError(f"{folder / name} is a folder, and a file is to be written there; move it")
    if len(parts) == 2 and (folder / parts[0]).is_symlink():
        raise InputError(f"{folder / parts[0]} is a link, and would be written through; move it")


def _temporary(folder: Path, content: Content, mode_of: Path | None = None) -> Path:
    descriptor, path = _create(folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            if mode_of is not None and mode_of.is_file():
                os.fchmod(file.fileno(), stat.S_IMODE(mode_of.stat().st_mode))
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def _create(folder: Path) -> tuple[int, Path]:
    """Make an empty file that did not exist; links are not followed."""
    path = folder / f".iarmem-{secrets.token_hex(8)}.partial"
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o666), path


def _nearest_folder(path: Path) -> Path:
    """Return the path, if it is a folder, or the nearest folder above it that exists."""
    target = path.resolve()
    parent = target
    while not parent.exists():
        parent = parent.parent
    if parent != target and not parent.is_dir():
        raise InputError(f"{path} cannot be made, since {parent} is a file; name another place")
    return parent if parent.is_dir() else parent.parent


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes of ours from writing into the folder; the lock dies with this one."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _wait_for_lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _wait_for_lock(descriptor: int, folder: Path) -> None:
    end = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise InputError(
                    f"another process has been writing into {folder} for a minute; wait for its "
                    "end, or name another folder"
                ) from None
            time.sleep(0.02)
        except OSError:  # a file system without locks
            return
        else:
            return


@contextmanager
def _room_for(folder: Path, size: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL_ERRNOS:
            raise
        raise DiskFullError(
            error.errno,
            f"the disk is full, or a file may not be so large: {folder} needs {size / 1e6:.1f} MB; "
            "make room, and give the same command again",
        ) from error
