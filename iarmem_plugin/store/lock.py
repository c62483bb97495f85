"""WriteLock: one capture at a time writes a model's activations."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
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
from iarmem_plugin.text import shown
from iarmem_plugin.untrusted import parse_json, read_small

_LIMIT = 65_536  # bytes of a lock; ours have two hundred
_MAX_PID = 2**31 - 1


@dataclass(frozen=True, slots=True)
class _Owner:
    """Who holds a lock.

    Attributes:
        host: name of the machine.
        pid: number of the process; 0 if it is not known.
        since: time at which it took the lock.
        started: when the process began, in the system's ticks; None if nobody can tell.
        boot: which start of the machine it was; None if nobody can tell.
    """

    host: str = "unknown"
    pid: int = 0
    since: str = "unknown"
    started: int | None = None
    boot: str | None = None

    @classmethod
    def here(cls) -> _Owner:
        """Return this process."""
        since, pid = datetime.now(UTC).isoformat(timespec="microseconds"), os.getpid()
        return cls(socket.gethostname(), pid, since, _started(pid), _boot())

    @classmethod
    def of(cls, data: bytes) -> _Owner:
        """Read the content of a lock; one that is damaged, or cut short by a kill, has no owner."""
        try:
            found = parse_json(data, "the lock")
            pid, started, boot = found["pid"], found.get("started"), found.get("boot")
            if type(pid) is int and 0 < pid <= _MAX_PID and type(started) in (int, type(None)):
                boot = None if boot is None else str(boot)
                return cls(str(found["host"]), pid, str(found["since"]), started, boot)
        except (InputError, KeyError, TypeError, AttributeError):
            pass
        return cls()

    @property
    def local(self) -> bool:
        """Tell whether it is a process of this machine."""
        return self.host == socket.gethostname()

    @property
    def running(self) -> bool:
        """Tell whether it runs on this machine: the process itself, not one of the same number."""
        if not (self.pid and self.local and _is_running(self.pid)):
            return False
        if self.boot not in (None, _boot()):
            return False
        if self.started is None:  # an older release wrote it, which this process is not
            return self.pid != os.getpid()
        return self.started == _started(self.pid)

    def __str__(self) -> str:
        """Name it."""
        return f"process {self.pid} on {shown(self.host, 80)}, since {shown(self.since, 40)}"


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
        self._written = json.dumps(asdict(_Owner.here())).encode()
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
        owner = _Owner.of(content := self._read())
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


def _is_running(pid: int) -> bool:
    """Tell whether there is a process of that number; one that waits to be buried is none."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return _status(pid)[:1] not in (["Z"], ["X"])


def _started(pid: int) -> int | None:
    """Return when a process began, in the system's ticks; None where the system does not say."""
    status = _status(pid)
    return int(status[19]) if len(status) > 19 else None


def _status(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat from the third; none where there is no such file."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()  # the second is a name, and may hold anything


def _boot() -> str | None:
    """Return the name of this start of the machine; None where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
