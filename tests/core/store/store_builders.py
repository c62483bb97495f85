"""Small stores with known numbers; as a program, one process of a capture that may be killed.

``python store_builders.py PATH RANK WORLD BARRIER`` resumes a capture, writes its share of the
pending slabs, and prints the number of each as it begins it. BARRIER is an empty folder.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import xarray as xr

from iarmem_plugin.data.images import Images
from iarmem_plugin.interfaces.layout import ModelLayout, Scale
from iarmem_plugin.store.resume import open_for_capture
from iarmem_plugin.store.store import ActivationStore
from iarmem_plugin.store.writer import deal

BLOCKS, SCALES, NEURONS = 2, 3, 20
KILLED = {"model": "tiny", "slab": 8}  # of the capture that is killed
KILLED_BLOCKS, KILLED_IMAGES = 32, 8 * 12 - 3


def make_layout(neurons: int = NEURONS, scales: int = SCALES, blocks: int = BLOCKS) -> ModelLayout:
    spans = [Scale(str(s), tuple(range(s * s, (s + 1) ** 2))) for s in range(scales)]
    paths = ("b.{block}.fc1", "b.{block}.act", "b.{block}.fc2")
    return ModelLayout("var", blocks, neurons, tuple(spans), *paths)


def make_images(count: int) -> Images:
    pixels = np.zeros((count + 3, 4, 4, 3), np.uint8)
    names = [f"n{i:02d}/{i}.png" for i in range(count + 3)]
    whole = Images.from_arrays(pixels, np.arange(count + 3) % 5, names=names)
    return whole.subset(range(3, count + 3))  # ids 3, 4, ...: not the positions


def make_scores(count: int, layout: ModelLayout) -> np.ndarray:
    shape = (count, layout.num_blocks, len(layout.scales), layout.neurons_per_block)
    return np.random.default_rng(0).random(shape, np.float32)


def as_slab(scores: np.ndarray) -> np.ndarray:
    """Return scores, image first, as one slab."""
    return np.ascontiguousarray(np.moveaxis(scores, 0, -1))[None]


def batches(scores: np.ndarray, images: Images, size: int) -> list[xr.DataArray]:
    """Return batches as `capture` yields them: image-first in memory."""
    dims = ("image", "block", "scale", "neuron")
    result = []
    for low in range(0, len(scores), size):
        part = slice(low, low + size)
        coords = {"image": images.ids[part], "label": ("image", images.labels[part])}
        data = xr.DataArray(scores[part], dims=dims, coords=coords)
        result.append(data.transpose("block", "scale", "neuron", "image"))
    return result


def fill(
    path: Path, count: int = 21, slab: int = 8, size: int = 5, neurons: int = NEURONS
) -> tuple[ActivationStore, np.ndarray]:
    """Return a whole store of the model "tiny", and its scores, image first."""
    layout, images = make_layout(neurons), make_images(count)
    scores = make_scores(count, layout)
    store = ActivationStore.create(path, model="tiny", layout=layout, images=images, slab=slab)
    with store.writing("tiny") as writer:
        for batch in batches(scores, images, size):
            writer.write(batch)
    return store, scores


def contents(path: Path) -> dict[str, bytes]:
    return {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file()}


def open_killed(path: Path, lock: str) -> object:
    layout = make_layout(64, blocks=KILLED_BLOCKS)
    images = make_images(KILLED_IMAGES)
    return open_for_capture(path, layout=layout, images=images, lock=lock, **KILLED)


def killed_slab(store: ActivationStore, slab: int) -> np.ndarray:
    """Return a slab that depends on its number alone."""
    shape = (1, KILLED_BLOCKS, SCALES, 64, len(store.images_of("tiny", slab)))
    return np.random.default_rng(slab).random(shape, np.float32)


def write_pending(path: Path) -> None:
    """Begin or resume in this process, and finish."""
    with open_killed(path, "break") as store, store.writing("tiny") as writer:
        for slab in store.pending("tiny"):
            writer.put(slab, killed_slab(store, slab))


def main(path: Path, rank: int, world: int, barrier: Path) -> None:
    with open_killed(path, "wait" if rank else "break") as store:
        mine = deal(store.pending("tiny"), rank=rank, world=world)
        (barrier / str(rank)).touch()  # nobody writes before everyone knows what is pending
        while len(list(barrier.iterdir())) < world:
            time.sleep(0.002)
        with store.writing("tiny") as writer:
            for slab in mine:
                activations = killed_slab(store, slab)
                print(slab, flush=True)
                writer.put(slab, activations)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
