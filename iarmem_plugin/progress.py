"""Progress: bars where there is a place for them, and else a line of the log now and then."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from iarmem_plugin.text import LONGEST_LINE, rich_text, shown

if TYPE_CHECKING:
    from rich.progress import Progress

EVERY = 30.0  # seconds between two lines of the log about one thing
LOGGER = logging.getLogger(__name__)


def progress_bar(
    progress: Progress | None, description: str, total: int, *, done: int = 0
) -> Callable[[int], None]:
    """Show a progress bar, and return what moves it on.

    Where no bar is shown, a line of the log (level ``INFO``) says now and then how far it is.

    Args:
        progress: place where bars are shown; None shows nothing, and where it is disabled, as
            without a terminal, the log also has the end.
        description: text beside the bar.
        total: number of steps, such as images.
        done: number of steps that were done before.

    Returns:
        function that takes the number of steps done since it was last called.
    """
    if progress is None or progress.disable:
        return _Lines(shown(description), total, done, tells_end=progress is not None)
    from rich.markup import escape

    text = escape(shown(description))  # since rich's own bars read brackets as styles
    return partial(progress.advance, progress.add_task(text, total=total, completed=done))


def print_above(progress: Progress | None, line: str) -> None:
    """Print a line above the progress bars, where there is a place for them."""
    if progress is not None:
        progress.console.print(rich_text(line, LONGEST_LINE), soft_wrap=True)


class _Lines:
    """How far something is, as lines of the log."""

    def __init__(self, description: str, total: int, done: int, *, tells_end: bool) -> None:
        self._description, self._total, self._done = description, total, done
        self._tells_end, self._told = tells_end, time.monotonic()

    def __call__(self, steps: int) -> None:
        """Count steps, and say so if it is time."""
        self._done += steps
        now, ended = time.monotonic(), self._done >= self._total
        if now - self._told >= EVERY or (ended and self._tells_end):
            LOGGER.info("%s: %d of %d", self._description, self._done, self._total)
            self._told = now
