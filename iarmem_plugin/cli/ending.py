"""How a command ends when something outside ends it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from iarmem_plugin.errors import EndedBySignal

_ENDING = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def ends_orderly() -> Iterator[None]:
    """Leave every context when a scheduler, a container or a closed terminal ends the process.

    So locks go, and models and files are put back. It ends with 128 and the signal's number; what
    ends it a second time is not heard, so that the leaving is not interrupted. A signal that the
    process was started without (``nohup``) stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():  # no signal comes here
        yield
        return
    before = {one: signal.getsignal(one) for one in _ENDING}
    ours = [one for one, handler in before.items() if handler is not signal.SIG_IGN]

    def leave(number: int, _: FrameType | None) -> None:
        for one in ours:
            signal.signal(one, signal.SIG_IGN)
        raise EndedBySignal(128 + number)

    for one in ours:
        signal.signal(one, leave)
    try:
        yield
    finally:
        for one in ours:
            signal.signal(one, before[one] or signal.SIG_DFL)
