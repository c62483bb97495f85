"""One process of a capture that may be killed; a program, whose parts the tests call, too.

``python writer_process.py PATH RANK WORLD BARRIER FILES`` resumes a capture and writes its share
of the pending slabs. BARRIER is an empty folder. With FILES above 0 it kills itself as it begins to
write so many files of activations.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from iarmem_plugin.activations.settings import CaptureSettings
from iarmem_plugin.data.images import Images
from iarmem_plugin.interfaces.layout import ModelLayout, Scale
from iarmem_plugin.interfaces.mlp import MLP, Reads, Site, Writes
from iarmem_plugin.store import ActivationStore, open_for_capture

BLOCKS, SCALES, NEURONS, IMAGES, SLAB = 32, 3, 64, 8 * 12 - 3, 8


def settings() -> CaptureSettings:
    spans = tuple(Scale(str(number), (number,)) for number in range(SCALES))
    paths = MLP(Writes("{block}.c"), {"fc1": Reads("{block}.a")}, Site("{block}.b"))
    layout = ModelLayout("var", BLOCKS, NEURONS, spans, paths, range(SCALES))
    images = Images.from_arrays(np.zeros((IMAGES, 4, 4, 3), np.uint8), np.arange(IMAGES) % 5)
    return CaptureSettings("tiny", layout, images, SLAB)


def begin(path: Path, lock: Any) -> AbstractContextManager[ActivationStore]:
    return open_for_capture(path, settings(), lock=lock)


def activations(store: ActivationStore, slab: int) -> np.ndarray:
    """Return values that depend on the slab's number alone."""
    shape = (1, BLOCKS, SCALES, NEURONS, len(store.images_of("tiny", slab)))
    return np.random.default_rng(slab).random(shape, np.float32)


def write_pending(path: Path) -> None:
    """Begin or resume in this process, and finish."""
    with begin(path, "break") as store, store.writing("tiny") as writer:
        for slab in store.pending("tiny"):
            writer.put(slab, activations(store, slab))


def kill_itself_at(files: int) -> None:
    """Have this process killed as it begins to write so many files of activations."""
    begun = itertools.count(1)

    def look(event: str, args: tuple[Any, ...]) -> None:
        if event != "open" or "/activation/c/" not in str(args[0]):
            return
        if set("wxa+") & set(str(args[1])) and next(begun) == files:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)


def main(path: Path, rank: int, world: int, barrier: Path) -> None:
    with begin(path, "wait" if rank else "break") as store:
        mine = store["tiny"].slabs.share(rank, world, among=store.pending("tiny"))
        (barrier / str(rank)).touch()  # nobody writes before everyone knows what is pending
        while len(list(barrier.iterdir())) < world:
            time.sleep(0.002)
        with store.writing("tiny") as writer:
            for slab in mine:
                writer.put(slab, activations(store, slab))


if __name__ == "__main__":
    if at := int(sys.argv[5]):
        kill_itself_at(at)
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
