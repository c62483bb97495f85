"""One file or folder on a disk: made without following links, waited for, locked."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from iarmem_plugin.errors import DiskFullError, InputError

DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
RUNNING = ".iarmem-running"
TEMPORARY = re.compile(r"\.iarmem-[0-9a-f]{16}\.partial")
_LOCK_SECONDS = 60
_NOT_SUPPORTED = (errno.EOPNOTSUPP, errno.EINVAL, errno.EISDIR)


@dataclass(frozen=True, slots=True)
class Streamed:
    """Content that is written piece by piece, since it is too much to be held twice.

    Attributes:
        size: about how many bytes it has.
        write: writes it into an open file, from its beginning to its end.
    """

    size: int
    write: Callable[[BinaryIO], object]


Content = bytes | bytearray | memoryview | Streamed


def fsync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk, where the disk can say so."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:  # some file systems cannot wait for a folder
            raise
    finally:
        os.close(descriptor)


def put(path: Path, content: Content, mode_of: Path | None = None) -> None:
    """Write a new file, with the mode of another where that is there."""
    descriptor = _create(path)
    try:
        if isinstance(content, Streamed):
            with open(descriptor, "wb", closefd=False) as file:
                content.write(file)
            content = b""
        rest = memoryview(content).cast("B")
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        with suppress(OSError):  # not there, or a file system without modes
            found = None if mode_of is None else mode_of.lstat()
            if found is not None and stat.S_ISREG(found.st_mode):
                os.fchmod(descriptor, found.st_mode & 0o777)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def new_name() -> str:
    """Return a name for a file that is not yet what it is to be; nobody can guess it."""
    return f".iarmem-{secrets.token_hex(8)}.partial"


def _create(path: Path) -> int:
    """Open an empty file that did not exist; links are not followed."""
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o666)


def try_to_write(folder: Path) -> None:
    """Make a file and let it go; it has no name, where the file system can, so none is left."""
    try:
        os.close(os.open(folder, os.O_WRONLY | getattr(os, "O_TMPFILE", 0), 0o600))
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
        trial = folder / new_name()
        try:
            os.close(_create(trial))
        finally:
            trial.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Keep other processes of ours from writing into the folder; the lock dies with this one.

    Yields:
        False where the file system has no locks for folders.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield _wait_for_lock(descriptor, folder)
    finally:
        os.close(descriptor)


def _wait_for_lock(descriptor: int, folder: Path) -> bool:
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
        except OSError:  # such as NFS
            return False
        else:
            return True


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other commands of ours from using a folder for their results; the lock dies with us.

    The folder is made where it is missing, and goes if it is empty in the end. Where the file
    system has no locks, nothing is kept apart.

    Raises:
        InputError: another command writes its results into it, or it cannot be written.
    """
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    with named_errors(folder, 0):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _open_running(folder)
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / RUNNING).unlink()
        os.close(descriptor)
        with suppress(OSError):  # it holds something
            for one in made:
                one.rmdir()


def _open_running(folder: Path) -> int:
    """Return the open and locked file that says that a command runs."""
    while True:
        place = folder / RUNNING
        descriptor = os.open(place, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise InputError(
                f"another command writes its results into {folder}; wait for its end, or name "
                "another folder"
            ) from None
        except OSError:  # such as NFS
            return descriptor
        with suppress(FileNotFoundError):  # it went when the one before us ended
            if place.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        os.close(descriptor)


@contextmanager
def named_errors(folder: Path, size: int) -> Iterator[None]:
    """Say in one line why a folder cannot be written to."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL_ERRNOS:
            raise InputError(
                f"{folder} cannot be written to ({error.strerror}); name another place"
            ) from error
        raise DiskFullError(
            error.errno,
            f"the disk is full, or a file may not be so large: {folder} needs {size / 1e6:.1f} MB; "
            "make room, and give the same command again",
        ) from error
