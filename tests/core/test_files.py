"""Results on disk: refused before the work, or written whole, whatever happens meanwhile."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iarmem_plugin import disk, files
from iarmem_plugin.disk import RUNNING
from iarmem_plugin.errors import DiskFullError, InputError
from iarmem_plugin.files import (
    JOURNAL,
    alone,
    check_file,
    check_results,
    check_writable,
    finish_writing,
    is_ours,
    write_results,
    write_whole,
)
from iarmem_plugin.jobs.scores import check_scores_folder
from iarmem_plugin.report.report import check_output_folder

OLD = {"a.txt": b"old a", "b.txt": b"old b", "figures/c.png": b"old c", "gone.txt": b"old"}
NEW = {"a.txt": b"new a" * 99, "b.txt": b"new b", "figures/c.png": b"new c", "figures/d.png": b"d"}
MINE = {"mine.txt": b"mine", "figures/mine.png": b"mine"}
CHECKS = [check_writable, check_file, check_scores_folder, check_output_folder]
Check = Callable[[Path], None]


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the disk; nobody pulls its plug."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def write_old(folder: Path) -> None:
    write_results(folder, OLD)
    for name, content in MINE.items():
        (folder / name).write_bytes(content)


def write_new(folder: Path) -> None:
    write_results(folder, NEW, remove=list(OLD))


def steps() -> range:
    """Return the numbers of the operations that a run takes; there are never more than 60."""
    return range(1, 60)


def everything(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder, hidden ones included."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def whole(found: dict[str, bytes]) -> str:
    """Tell which set is in a folder, of which nothing may be missing."""
    rest = {name: content for name, content in found.items() if name not in MINE}
    assert {name: found.get(name) for name in MINE} in (MINE, dict.fromkeys(MINE))
    return {str(OLD): "old", str(NEW): "new", "{}": "none"}[str(dict(sorted(rest.items())))]


# --- before the work


@pytest.mark.parametrize("check", CHECKS)
def test_a_folder_below_a_file_is_refused(tmp_path: Path, check: Check) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"file is a file"):
        check(tmp_path / "file" / "deep" / "out")


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("url", ["s3://bucket/scores", "zip://x", "file:///tmp/x"])
def test_a_url_is_refused(check: Check, url: str) -> None:
    with pytest.raises(InputError, match="looks like a URL"):
        check(Path(url))


@pytest.mark.parametrize("name", ["x" * 300, "null\0byte", "there/and/" + "y" * 256])
def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be made"):
        check_writable(tmp_path / name)


def test_links_that_lead_nowhere_or_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for name in ("nowhere", "circle", "circle/out"):
        with pytest.raises(InputError, match=r"leads nowhere|not there|cannot be made"):
            check_writable(tmp_path / name)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EOPNOTSUPP])
def test_a_folder_that_may_not_be_written_to_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> int:  # the superuser may write anywhere
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(InputError, match="may not be written to"):
        check_writable(tmp_path / "out")


def test_a_new_folder_in_a_new_folder_is_fine_and_nothing_is_made(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_trial_leaves_nothing_where_files_must_have_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "O_TMPFILE")
    check_writable(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [("a.txt", "is a folder"), ("figures", "file or a link"), ("link", "file or a link")],
)
def test_names_that_are_taken_are_refused_before_the_work_and_at_its_end(
    tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / "a.txt").mkdir()
    (tmp_path / "figures").write_bytes(b"mine")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    place = name if name == "a.txt" else f"{name}/c.png"
    for refuse in (
        lambda: check_results(tmp_path, [place]),
        lambda: write_results(tmp_path, {"x": b"1", place: b"2"}),
    ):
        with pytest.raises(InputError, match=message):
            refuse()
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "figures", "link"]


# --- all or nothing


@pytest.mark.parametrize("begin", [write_old, lambda _: None], ids=["replaced", "first"])
def test_killed_at_every_operation_the_old_set_or_the_new_one_is_whole(
    tmp_path: Path, faults: Any, begin: Check
) -> None:
    seen = []
    for step in steps():
        folder = tmp_path / f"at{step}"
        folder.mkdir()
        begin(folder)
        mine = {name: content for name, content in everything(folder).items() if name in MINE}
        try:
            with faults.faulty(step):
                write_new(folder)
        except faults.Death:
            left = everything(folder)
            assert all(name in {*OLD, *NEW, *MINE} or is_ours(name) for name in left)
        else:
            break
        finish_writing(folder)
        found = {name: one for name, one in everything(folder).items() if not is_ours(name)}
        seen.append(whole(found))
        write_new(folder)  # the next good run
        assert everything(folder) == {**NEW, **mine}
    first = "none" if begin is not write_old else "old"
    assert set(seen) == {first, "new"}
    assert seen == sorted(seen, key=[first, "new"].index)


@pytest.mark.parametrize("lasting", [True, False], ids=["for good", "once"])
@pytest.mark.parametrize(
    "error", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG], ids=errno.errorcode.get
)
def test_full_at_every_operation_the_disk_keeps_the_old_set_or_the_new_one(
    tmp_path: Path, faults: Any, error: int, lasting: bool
) -> None:
    messages = set()
    for step in steps():
        folder = tmp_path / f"at{step}"
        write_old(folder)
        try:
            with faults.faulty(step, error, lasting=lasting) as full:
                write_new(folder)
        except DiskFullError as refused:
            messages.add(str(refused).partition("] ")[2].partition(":")[0])
        else:
            if full.count < step:
                break
        if JOURNAL not in os.listdir(folder):
            assert not any(map(is_ours, everything(folder)))  # as if nothing had happened
        finish_writing(folder)
        whole(everything(folder))
        write_new(folder)
        assert everything(folder) == {**NEW, **MINE}
    assert messages == {"the disk is full, or a file may not be so large"}


def test_an_interrupt_at_every_operation_leaves_one_set_whole(tmp_path: Path, faults: Any) -> None:
    for step in steps():
        folder = tmp_path / f"at{step}"
        write_old(folder)
        done = interrupted(faults, folder, step)
        if done:
            break
        finish_writing(folder)
        found = everything(folder)
        assert not any(map(is_ours, found))
        whole(found)


def interrupted(faults: Any, folder: Path, step: int) -> bool:
    """Write a set; Ctrl-C comes right after the n-th operation. Return whether there was none."""
    with faults.faulty(10**9) as counted, pytest.MonkeyPatch.context() as patch:
        for name in ("open", "write", "fsync", "mkdir", "replace", "unlink"):
            act = getattr(os, name)

            def then_stop(*arguments: object, act: Callable[..., object] = act) -> object:
                done = act(*arguments)
                if counted.count == step:
                    counted.count += 1
                    raise KeyboardInterrupt
                return done

            patch.setattr(os, name, then_stop)
        try:
            write_new(folder)
        except KeyboardInterrupt:
            return False
    return True


def test_one_file_is_replaced_by_one_rename(tmp_path: Path, faults: Any) -> None:
    for step in steps():
        file = tmp_path / f"at{step}" / "a.txt"
        write_whole(file, b"old")
        try:
            with faults.faulty(step):
                write_whole(file, b"new")
        except faults.Death:
            assert file.read_bytes() in (b"old", b"new")
            write_whole(file, b"new")
            assert os.listdir(file.parent) == ["a.txt"]
        else:
            break
    assert step < 10  # no journal


def test_two_writers_at_once_leave_one_set_whole(tmp_path: Path) -> None:
    sets = [{f"{name}.txt": bytes([one]) for name in "abcde"} for one in range(4)]
    writers = [
        threading.Thread(target=write_results, args=(tmp_path, one), kwargs={"remove": list(one)})
        for one in sets * 3
    ]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    assert everything(tmp_path) in sets


def test_without_locks_the_young_files_of_another_process_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EBADF, "no locks for folders on this file system")

    monkeypatch.setattr(disk.fcntl, "flock", refuse)
    other, litter = (tmp_path / f".iarmem-{digit * 16}.partial" for digit in "ab")
    other.write_bytes(b"of another process")
    litter.write_bytes(b"of a killed one")
    os.utime(litter, (0, 0))
    write_new(tmp_path)
    assert everything(tmp_path) == {**NEW, other.name: b"of another process"}


# --- what is not ours


def test_modes_links_and_other_names_of_a_file_stay(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_old(out)
    out.chmod(0o750)
    (out / "a.txt").chmod(0o600)
    os.link(out / "b.txt", tmp_path / "second name")
    (out / "gone.txt").unlink()
    (tmp_path / "victim").write_bytes(b"mine")
    (out / "gone.txt").symlink_to(tmp_path / "victim")
    before = out.stat()
    write_results(out, NEW | {"gone.txt": b"new"})
    assert (out.stat().st_mode, out.stat().st_ino) == (before.st_mode, before.st_ino)
    assert (out / "a.txt").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "second name").read_bytes() == b"old b"
    assert (tmp_path / "victim").read_bytes() == b"mine"
    assert (out / "gone.txt").read_bytes() == b"new"


def test_links_laid_under_the_old_temporary_names_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"mine")
    out = tmp_path / "out"
    out.mkdir()
    for name in ("a.txt.partial", ".iarmem-0123456789abcdef.partial", JOURNAL):
        (out / name).symlink_to(tmp_path / "victim")
    with pytest.raises(InputError, match="damaged"):
        write_results(out, NEW)
    (out / JOURNAL).unlink()
    write_results(out, NEW)
    assert (tmp_path / "victim").read_bytes() == b"mine"
    assert "a.txt.partial" in os.listdir(out)


HOSTILE = [
    "../victim", "/etc/victim", "a/b/c", "..", "", ".", "figures/..", "link/victim", 3, None,
    ["victim"], "null\0byte", "\ud800", "x" * 300,
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
@pytest.mark.parametrize("part", ["rename", "remove"])
def test_a_journal_that_someone_else_wrote_leads_nowhere(
    tmp_path: Path, part: str, name: object
) -> None:
    (tmp_path / "victim").write_bytes(b"mine")
    out, temporary = tmp_path / "out", f".iarmem-{'0' * 16}.partial"
    write_old(out)
    (out / temporary).write_bytes(b"theirs")
    (out / "link").symlink_to(tmp_path, target_is_directory=True)
    journal = {"rename": {}, "remove": [name]}
    if part == "rename":
        journal = {"rename": {temporary: name}, "remove": []}
    (out / JOURNAL).write_text(json.dumps(journal))
    with pytest.raises(InputError):
        finish_writing(out)
    assert (tmp_path / "victim").read_bytes() == b"mine"
    assert {name: (out / name).read_bytes() for name in MINE} == MINE


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "3", '{"rename": 3, "remove": []}', '{"rename": {"a": "b"}}',
             '{"rename": {"mine.txt": "a.txt"}, "remove": []}', "[" * 9999]
)  # fmt: skip
def test_a_damaged_journal_is_refused_with_the_cure(tmp_path: Path, text: str) -> None:
    write_old(tmp_path)
    (tmp_path / JOURNAL).write_text(text)
    for refuse in (finish_writing, write_new):
        with pytest.raises(InputError, match=r"iarmem-journal"):
            refuse(tmp_path)
    (tmp_path / JOURNAL).unlink()
    assert everything(tmp_path) == {**OLD, **MINE}


def test_a_folder_that_can_only_be_read_says_what_was_not_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_old(tmp_path)
    (tmp_path / JOURNAL).write_text('{"rename": {}, "remove": ["a.txt"]}')

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(files.os, "unlink", refuse)
    with pytest.raises(InputError, match=r"not finished.*Read-only"):
        finish_writing(tmp_path)


@pytest.mark.parametrize("missing", ["", "a/b"])
def test_one_command_at_a_time_uses_a_folder_for_its_results(tmp_path: Path, missing: str) -> None:
    out = tmp_path / missing
    with alone(out):
        check_scores_folder(out)
        with pytest.raises(InputError, match="another command writes its results into"):
            alone(out).__enter__()
        check_output_folder(out)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / RUNNING).touch()  # of a command that was killed
    with alone(tmp_path):
        (tmp_path / "mine").touch()
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / RUNNING).symlink_to(tmp_path / "victim")
    with pytest.raises(InputError, match="cannot be written to"):
        alone(tmp_path).__enter__()
    assert not (tmp_path / "victim").exists()
