"""Progress bars: asked for in one line, and nothing is shown where there is no place for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


def progress_bar(
    progress: Progress | None, description: str, total: int, *, done: int = 0
) -> Callable[[int], None]:
    """Show a progress bar, and return what moves it on.

    Args:
        progress: place where bars are shown; None shows nothing.
        description: text beside the bar.
        total: number of steps, such as images.
        done: number of steps that were done before.

    Returns:
        function that takes the number of steps done since it was last called.
    """
    if progress is None:
        return _nothing
    return partial(progress.advance, progress.add_task(description, total=total, completed=done))


def print_above(progress: Progress | None, line: str) -> None:
    """Print a line above the progress bars, where there is a place for them."""
    if progress is not None:
        progress.console.print(line, highlight=False, soft_wrap=True)


def _nothing(_steps: int) -> None:
    return None
