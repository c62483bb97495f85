"""SlabThread: writes slabs while the model goes on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np


class SlabThread:
    """One background thread that writes one slab at a time; the next one waits for it.

    With the slab that is being filled, two are in memory.
    An error of the thread is raised by the next call, and no slab is written after it.
    """

    def __init__(self, put: Callable[[int, np.ndarray], None]) -> None:
        """Start idle; ``put`` writes a slab, given its number and its activations."""
        self._put = put
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="iarmem-store")
        self._running: Future[None] | None = None

    def put(self, slab: int, activations: np.ndarray) -> None:
        """Hand over a slab, once the one before is on disk; do not change it afterwards."""
        self.flush()
        self._running = self._threads.submit(self._put, slab, activations)

    def flush(self) -> None:
        """Wait until all that was handed over is on disk."""
        if self._running is not None:
            self._running.result()

    def close(self) -> None:
        """Wait for the thread, and end it; its errors were raised by `flush` or are dropped."""
        self._threads.shutdown(wait=True)
