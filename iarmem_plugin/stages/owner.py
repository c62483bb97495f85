"""Which process holds something on disk, and whether it still runs."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from iarmem_plugin.errors import InputError
from iarmem_plugin.text import shown
from iarmem_plugin.untrusted import parse_json

_MAX_PID = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a lock or a claim.

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
    def here(cls) -> Owner:
        """Return this process."""
        since, pid = datetime.now(UTC).isoformat(timespec="microseconds"), os.getpid()
        return cls(socket.gethostname(), pid, since, _started(pid), _boot())

    @classmethod
    def of(cls, data: bytes) -> Owner:
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
