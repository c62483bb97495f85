"""Results on disk: whether they can be written where the user wants it, and whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from iarmem_plugin.errors import DiskFullError, InputError

DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)


def check_writable(path: Path) -> None:
    """Refuse a path that cannot be made.

    Raises:
        InputError: one of its parents is a file, or may not be written to.
    """
    target = path.resolve()
    parent = target
    while not parent.exists():
        parent = parent.parent
    if parent != target and not parent.is_dir():
        raise InputError(f"{path} cannot be made, since {parent} is a file; name another place")
    if not os.access(parent, os.W_OK):
        raise InputError(f"{path} cannot be made: {parent} may not be written to")


def check_file(path: Path) -> None:
    """Refuse a path at which no file can be made; its folder may be missing.

    Raises:
        InputError: it is a folder, one of its parents is a file, or it may not be written to.
    """
    check_writable(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file")


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file as a whole or not at all; what was there before is replaced, or stays.

    Raises:
        DiskFullError: there is no room.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_bytes(content)
        fsync(partial)
    except OSError as error:
        partial.unlink(missing_ok=True)
        if error.errno not in DISK_FULL_ERRNOS:
            raise
        raise DiskFullError(
            errno.ENOSPC,
            f"the disk is full: {path} needs {len(content) / 1e6:.1f} MB; make room, and give the "
            "same command again",
        ) from error
    partial.replace(path)
    fsync(path.parent)


def fsync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
