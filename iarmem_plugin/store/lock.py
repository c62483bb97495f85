"""WriteLock: one capture at a time writes a model's activations."""

from __future__ import annotations

import fcntl
import json
import os
import stat
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

from iarmem_plugin.errors import (
    DiskFullError,
    IarmemError,
    InputError,
    LockError,
    StoreLockedError,
)
from iarmem_plugin.files import DISK_FULL_ERRNOS
from iarmem_plugin.stages.owner import Owner
from iarmem_plugin.text import shown
from iarmem_plugin.untrusted import read_small

_LIMIT = 65_536  # bytes of a lock; ours have two hundred


class WriteLock:
    """A file beside the store that says which process writes to it; held in a ``with``.

    It lies outside the store, so that readers never meet it: ``<store>.<model>.lock``.
    A killed process leaves it behind. That is reported, and the file is removed only on request.
    """

    def __init__(self, store: Path, model: str, *, break_stale: bool = False) -> None:
        """Name the lock; nothing is touched yet.

        Args:
            store: path of the store.
            model: name of the model's group.
            break_stale: whether to remove the lock of a process that is gone, or that ran on
                another host, where nobody can tell.
        """
        store = store.resolve()  # by whatever name it was reached
        self.file = store.with_name(f"{store.name}.{model}.lock")
        self._break_stale, self._written = break_stale, b""

    def __enter__(self) -> WriteLock:
        """Take the lock.

        Raises:
            StoreLockedError: naming host, process and time of the one who holds it.
            DiskFullError: there is no room for the lock.
            LockError: it cannot be read or written, or is something else.
        """
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._take()
            except FileExistsError:
                self._refuse_or_break()
                self._take_again()
        except OSError as error:
            if isinstance(error, IarmemError):
                raise
            kind = DiskFullError if error.errno in DISK_FULL_ERRNOS else LockError
            raise kind(
                error.errno,
                f"the lock {shown(self.file)} cannot be written ({error.strerror}); make room, see "
                "that you may write beside the store, or name another one",
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the lock back."""
        self._remove(self._written)  # not one that was taken after ours was broken

    def _take(self) -> None:
        self._written = json.dumps(asdict(Owner.here())).encode()
        descriptor = os.open(self.file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(self._written)
        except OSError:
            self.file.unlink()
            raise

    def _take_again(self) -> None:
        try:
            self._take()
        except FileExistsError as error:
            raise StoreLockedError(f"another capture took {self.file} just now") from error

    def _read(self) -> bytes:
        """Return the content of the lock; nothing if it is gone by now."""
        try:
            if stat.S_ISREG(self.file.lstat().st_mode):
                return read_small(self.file, "the lock", limit=_LIMIT)
            what = "is a link or a folder"
        except FileNotFoundError:
            return b""
        except InputError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return b""
            what = f"cannot be read ({error})"
        raise LockError(f"the lock {shown(self.file)} {what}; see what it is, and move it away")

    def _remove(self, content: bytes) -> None:
        """Delete the lock if it still says what was read or written; leave any other."""
        with suppress(FileNotFoundError):
            descriptor = os.open(self.file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                with suppress(OSError):  # a file system without locks
                    fcntl.flock(descriptor, fcntl.LOCK_EX)  # of two that break it, the first
                same = os.path.samestat(os.fstat(descriptor), self.file.lstat())
                if same and os.read(descriptor, _LIMIT + 1) == content:
                    self.file.unlink()
            finally:
                os.close(descriptor)

    def _refuse_or_break(self) -> None:
        owner = Owner.of(content := self._read())
        if owner.running:
            cure = f"; if it is no capture, delete {shown(self.file)}"  # a number can be used anew
            raise StoreLockedError(
                f"another capture is writing to it: {owner}; wait until it ends"
                f"{cure if owner.started is None else ''}"
            )
        if self._break_stale:
            self._remove(content)
            return
        gone = owner.local or not owner.pid
        raise StoreLockedError(
            f"{shown(self.file)} was left by {owner}, which "
            f"{'is gone' if gone else 'runs on another host, if it still runs'}; make sure that "
            "nothing writes to the store, then break the lock (--break-lock) or delete that file"
        )
