"""One process of a capture that may be killed; a program, whose parts the tests call, too.

``python writer_process.py PATH RANK WORLD BARRIER`` resumes a capture, writes its share of the
pending slabs, and prints the number of each as it begins it. BARRIER is an empty folder.
"""

from __future__ import annotations

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


def main(path: Path, rank: int, world: int, barrier: Path) -> None:
    with begin(path, "wait" if rank else "break") as store:
        mine = store["tiny"].slabs.share(rank, world, among=store.pending("tiny"))
        (barrier / str(rank)).touch()  # nobody writes before everyone knows what is pending
        while len(list(barrier.iterdir())) < world:
            time.sleep(0.002)
        with store.writing("tiny") as writer:
            for slab in mine:
                values = activations(store, slab)
                print(slab, flush=True)
                writer.put(slab, values)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
