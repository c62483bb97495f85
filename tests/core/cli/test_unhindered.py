"""What cannot be printed neither ends the work nor makes its result look like a failure."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SAYING = """
import sys
from iarmem_plugin.cli import console, main
import typer

def work(out: str) -> None:
    for _ in range(3000):
        console.say("a line of the log")
    console.show({"a": 1}, console.Group("table"), as_json=out.endswith("json"))
    open(out, "w").write("done")
    console.say("the end")

main.app.command()(work)
sys.argv = ["iarmem", "work", *sys.argv[1:]]
main.app()
"""
FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")


def started(out: Path, **streams: int) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-c", SAYING, str(out)]
    return subprocess.Popen(arguments, env=dict(os.environ), **streams)  # type: ignore[call-overload,no-any-return]  # each test's


def closed_pipe() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@needs_full
def test_a_full_disk_behind_stderr_does_not_stop_the_work(tmp_path: Path) -> None:
    with FULL.open("w") as full:
        process = started(tmp_path / "out", stderr=full.fileno(), stdout=subprocess.PIPE)
        shown, _ = process.communicate()
    assert (process.returncode, shown) == (0, b"table\n")
    assert (tmp_path / "out").read_text() == "done"


def test_a_closed_pipe_behind_stderr_does_not_stop_the_work(tmp_path: Path) -> None:
    process = started(tmp_path / "out", stderr=closed_pipe(), stdout=subprocess.PIPE)
    assert process.communicate()[0] == b"table\n"
    assert process.returncode == 0
    assert (tmp_path / "out").read_text() == "done"


@pytest.mark.parametrize("out", ["out", "out.json"])
def test_a_reader_of_stdout_that_is_gone_is_no_failure(tmp_path: Path, out: str) -> None:
    process = started(tmp_path / out, stdout=closed_pipe(), stderr=subprocess.PIPE)
    said = process.communicate()[1]
    assert process.returncode == 0
    assert said.splitlines()[-1] == b"the end"
    assert (tmp_path / out).read_text() == "done"


@needs_full
@pytest.mark.parametrize("out", ["out", "out.json"])
def test_a_full_disk_behind_stdout_is_named(tmp_path: Path, out: str) -> None:
    with FULL.open("w") as full:
        process = started(tmp_path / out, stdout=full.fileno(), stderr=subprocess.PIPE)
        said = process.communicate()[1]
    assert process.returncode == 2
    expected = b"Error: standard output cannot be written to (No space left on device)"
    assert said.splitlines()[-1].startswith(expected)
