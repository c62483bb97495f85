"""Progress is shown as a bar, or as lines of the log where no bar can be seen."""

from __future__ import annotations

import logging
from io import StringIO

import pytest
from rich.console import Console
from rich.progress import Progress

from iarmem_plugin import progress as module
from iarmem_plugin.progress import print_above, progress_bar


def test_a_bar_begins_at_what_was_done_and_moves_on() -> None:
    progress = Progress(console=Console(file=StringIO()))
    advance = progress_bar(progress, "capture", 7, done=2)
    advance(3)
    (task,) = progress.tasks
    assert (task.description, task.completed, task.total) == ("capture", 5, 7)


def test_a_line_that_is_longer_than_the_terminal_is_not_cut() -> None:
    console = Console(file=StringIO(), width=10)
    print_above(Progress(console=console), "a line of seven words is not cut")
    assert console.file.getvalue() == "a line of seven words is not cut\n"


def test_brackets_beside_and_above_a_bar_are_no_styles() -> None:
    console = Console(file=StringIO(), width=80)
    with Progress(console=console) as progress:
        progress_bar(progress, "[/a] [red]", 1)(1)
        print_above(progress, "[/b]\x1b[31m :smile:")
    assert "[/a] [red]" in console.file.getvalue()
    assert r"[/b]\x1b[31m :smile:" in console.file.getvalue()


def test_without_a_place_nothing_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    progress_bar(None, "capture", 7)(7)
    print_above(None, "a line")
    assert caplog.messages == []


def test_without_a_terminal_the_log_has_the_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    advance = progress_bar(Progress(disable=True), "capture", 7, done=2)
    advance(4)
    advance(1)
    assert caplog.messages == ["capture: 7 of 7"]


def test_a_line_of_the_log_comes_now_and_then(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    seconds = iter([0.0, 29.0, 31.0, 40.0, 62.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(seconds))
    advance = progress_bar(None, "arms", 9)
    for _ in range(4):
        advance(1)
    assert caplog.messages == ["arms: 2 of 9", "arms: 4 of 9"]
