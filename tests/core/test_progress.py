"""Progress bars move on as they are told; without a place for them, nothing is shown."""

from __future__ import annotations

from io import StringIO

from rich.console import Console
from rich.progress import Progress

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


def test_without_a_place_nothing_is_shown() -> None:
    progress_bar(None, "capture", 7)(3)
    print_above(None, "a line")
