"""WriteLock: one capture at a time writes a model's activations."""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from iarmem_plugin.errors import DiskFullError, IarmemError, LockError, StoreLockedError
from iarmem_plugin.files import DISK_FULL_ERRNOS


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
        self._break_stale, self._written = break_stale, ""

    def __enter__(self) -> WriteLock:
        """Take the lock.

        Raises:
            StoreLockedError: naming host, process and time of the one who holds it.
            DiskFullError: there is no room for the lock.
            LockError: it cannot be written.
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
                f"the lock {self.file} cannot be written ({error.strerror}); make room, or see "
                "that you may write beside the store",
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the lock back."""
        if self._read() == self._written:  # not one that was taken after ours was broken
            self.file.unlink(missing_ok=True)

    def _take(self) -> None:
        since = datetime.now(UTC).isoformat(timespec="microseconds")
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "since": since}
        self._written = json.dumps(owner)
        descriptor = os.open(self.file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(self._written)
        except OSError:
            self.file.unlink()
            raise

    def _take_again(self) -> None:
        try:
            self._take()
        except FileExistsError as error:
            raise StoreLockedError(f"another capture took {self.file} just now") from error

    def _read(self) -> str:
        try:
            return self.file.read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""

    def _break(self, text: str) -> None:
        """Remove the lock that was read; if another process was quicker, leave that one's."""
        broken = self.file.with_name(f"{self.file.name}.{os.getpid()}.broken")
        try:
            self.file.rename(broken)
        except FileNotFoundError:
            return
        if broken.read_text(encoding="utf-8") != text:
            with suppress(FileExistsError):
                os.link(broken, self.file)
        broken.unlink()

    def _refuse_or_break(self) -> None:
        text = self._read()
        try:
            owner = json.loads(text)
            host, pid, since = str(owner["host"]), int(owner["pid"]), str(owner["since"])
        except (ValueError, KeyError, TypeError):  # killed while taking it
            host, pid, since = "unknown", 0, "unknown"
        here = host == socket.gethostname()
        if self._break_stale and not (here and _is_running(pid)):
            self._break(text)
            return
        who = f"process {pid} on {host}, since {since}"
        if here and _is_running(pid):
            raise StoreLockedError(f"another capture is writing to it: {who}; wait until it ends")
        state = "is gone" if here or not pid else "runs on another host, if it still runs"
        raise StoreLockedError(
            f"{self.file} was left by {who}, which {state}; make sure that nothing writes to the "
            "store, then break the lock or delete that file"
        )


def _is_running(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
