"""Who holds a lock, told from a process that is gone, one of the same number, and a spoilt file."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from iarmem_plugin.errors import IarmemError, LockError, StoreLockedError
from iarmem_plugin.stages import owner as owner_module
from iarmem_plugin.store.lock import WriteLock


@pytest.fixture
def file(path: Path) -> Path:
    return path.with_name("x.zarr.tiny.lock")


def held(path: Path) -> dict[str, Any]:
    """Return what the lock of this process says."""
    with WriteLock(path, "tiny") as lock:
        owner: dict[str, Any] = json.loads(lock.file.read_text())
    return owner


def take(path: Path) -> None:
    with WriteLock(path, "tiny", break_stale=True):
        pass


def test_a_lock_says_which_process_it_was_and_when_that_began(path: Path, file: Path) -> None:
    owner = held(path)
    assert (owner["host"], owner["pid"]) == (socket.gethostname(), os.getpid())
    # the 22nd field of its status, and the name of this start of the machine
    status = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    assert owner["started"] == int(status[22 - 3])
    assert owner["boot"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert not file.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"started": 1},  # a process that had our number before us
        {"boot": "another start of the machine"},
        {"pid": 1, "started": 0, "boot": "another start of the machine"},
    ],
)
def test_a_process_of_the_same_number_does_not_hold_the_lock(
    path: Path, file: Path, change: dict[str, Any]
) -> None:
    file.write_text(json.dumps(held(path) | change))
    with pytest.raises(StoreLockedError, match=r"which is gone; .* \(--break-lock\) or delete"):
        WriteLock(path, "tiny").__enter__()
    take(path)
    assert not file.exists()


def test_the_lock_of_a_process_that_runs_is_not_broken(path: Path, file: Path) -> None:
    parent = held(path) | {"pid": os.getppid(), "started": owner_module._started(os.getppid())}
    for owner in (held(path), parent):
        file.write_text(json.dumps(owner))
        with pytest.raises(StoreLockedError, match=r"wait until it ends$"):
            take(path)
        assert json.loads(file.read_text()) == owner


def test_a_lock_of_an_older_release_is_read(path: Path, file: Path) -> None:
    older = {"host": socket.gethostname(), "since": "2026-01-01T00:00:00"}
    file.write_text(json.dumps(older | {"pid": os.getppid()}))  # which nobody can tell from it
    with pytest.raises(StoreLockedError, match="wait until it ends; if it is no capture, delete"):
        take(path)
    file.write_text(json.dumps(older | {"pid": os.getpid()}))  # this process writes newer ones
    take(path)
    assert not file.exists()


def test_a_process_that_was_killed_and_not_waited_for_is_gone(path: Path, file: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as child:
        started = owner_module._started(child.pid)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays listed
        file.write_text(json.dumps(held(path) | {"pid": child.pid, "started": started}))
        take(path)
    assert not file.exists()


DAMAGED = [
    b"",
    b"\xff\xfe\xff",
    b"[" * 60_000,
    b'{"pid": ' + b"9" * 5_000 + b"}",
    b'{"host": "h", "pid": Infinity, "since": "s"}',
    b'{"host": "h", "pid": true, "since": "s"}',
    b'{"host": "h", "pid": -1, "since": "s"}',
    b'{"host": "h", "pid": 1e3, "since": "s"}',
    b'{"host": "h", "pid": 12345678901234567890, "since": "s"}',
    b'{"host": "h", "pid": 1}',
    b'[{"pid": 1}]',
    b"7",
]


@pytest.mark.parametrize("data", DAMAGED)
def test_a_damaged_lock_is_reported_and_can_be_broken(path: Path, file: Path, data: bytes) -> None:
    file.write_bytes(data)
    with pytest.raises(StoreLockedError, match="left by process 0 on unknown"):
        WriteLock(path, "tiny").__enter__()
    take(path)
    assert not file.exists()


def test_names_in_a_lock_are_shown_as_text(path: Path, file: Path) -> None:
    file.write_text(json.dumps({"host": "a\x1b[31m\n" + "b" * 900, "pid": 5, "since": "\u202e"}))
    with pytest.raises(StoreLockedError) as caught:
        WriteLock(path, "tiny").__enter__()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= 600


@pytest.mark.parametrize("kind", ["link", "dangling link", "folder", "pipe", "large"])
def test_what_is_no_lock_is_left_alone(path: Path, tmp_path: Path, file: Path, kind: str) -> None:
    victim = tmp_path / "victim"
    match kind:
        case "link" | "dangling link":
            file.symlink_to(victim)
            if kind == "link":
                victim.write_text("mine")
        case "folder":
            file.mkdir()
        case "pipe":
            os.mkfifo(file)
        case "large":
            file.write_bytes(b"x" * 100_000)
    with pytest.raises(LockError, match="see what it is, and move it away"):
        take(path)
    assert os.path.lexists(file)
    assert victim.exists() == (kind == "link")


def test_a_lock_that_another_process_took_meanwhile_is_left(
    path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("an old lock")
    read = WriteLock._read

    def slowly(self: WriteLock) -> bytes:
        content = read(self)
        file.unlink()  # another process was quicker: it broke the lock, and took it
        file.write_text("another's")
        return content

    monkeypatch.setattr(WriteLock, "_read", slowly)
    with pytest.raises(IarmemError, match="just now"):
        take(path)
    assert file.read_text() == "another's"
    assert [one.name for one in path.parent.iterdir()] == [file.name]


def test_a_system_that_says_nothing_of_its_processes_goes_by_their_numbers(
    path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner_module, "_status", lambda _: [])
    monkeypatch.setattr(owner_module, "_boot", lambda: None)
    owner = held(path)
    assert (owner["started"], owner["boot"]) == (None, None)
    file.write_text(json.dumps(owner | {"pid": 2**22 + 1}))
    take(path)
    file.write_text(json.dumps(owner | {"pid": os.getppid()}))
    with pytest.raises(StoreLockedError, match="wait until it ends"):
        take(path)
