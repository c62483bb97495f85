"""Small stores with known numbers, and captures that are begun or resumed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from iarmem_plugin.activations.settings import CaptureSettings
from iarmem_plugin.data.images import Images
from iarmem_plugin.interfaces.layout import ModelLayout, Scale
from iarmem_plugin.interfaces.mlp import MLP, Reads, Site, Writes
from iarmem_plugin.store import ActivationStore, open_for_capture

IMAGES = 21  # of a capture that is begun, in slabs of 8


class Builders:
    """Makes small captures; two blocks, three scales and twenty neurons where nothing is said."""

    BLOCKS, SCALES, NEURONS = 2, 3, 20

    def layout(
        self, neurons: int = NEURONS, scales: int = SCALES, blocks: int = BLOCKS
    ) -> ModelLayout:
        spans = [Scale(str(s), tuple(range(s * s, (s + 1) ** 2))) for s in range(scales)]
        site, fc1 = Site("b.{block}.act"), Reads("b.{block}.fc1")
        paths = MLP(Writes("b.{block}.fc2"), {"fc1": fc1}, site)
        return ModelLayout("var", blocks, neurons, tuple(spans), paths, range(scales**2))

    def images(self, count: int) -> Images:
        pixels = np.zeros((count + 3, 4, 4, 3), np.uint8)
        names = [f"n{i:02d}/{i}.png" for i in range(count + 3)]
        whole = Images.from_arrays(pixels, np.arange(count + 3) % 5, names=names)
        return whole.subset(range(3, count + 3))  # ids 3, 4, ...: not the positions

    def settings(
        self,
        count: int = IMAGES,
        model: str = "tiny",
        *,
        neurons: int = NEURONS,
        scales: int = SCALES,
        blocks: int = BLOCKS,
        **more: Any,
    ) -> CaptureSettings:
        layout = self.layout(neurons, scales, blocks)
        given: dict[str, Any] = {"layout": layout, "images": self.images(count), "slab": 8}
        return CaptureSettings(model, **(given | more))

    def create(
        self, place: Any, count: int = IMAGES, model: str = "tiny", **more: Any
    ) -> ActivationStore:
        return ActivationStore.create(place, self.settings(count, model, **more))

    def scores(self, count: int, layout: ModelLayout | None = None) -> np.ndarray:
        layout = self.layout() if layout is None else layout
        shape = (count, layout.num_blocks, len(layout.scales), layout.neurons_per_block)
        return np.random.default_rng(0).random(shape, np.float32)

    def as_slab(self, scores: np.ndarray) -> np.ndarray:
        """Return scores, image first, as one slab."""
        return np.ascontiguousarray(np.moveaxis(scores, 0, -1))[None]

    def batches(self, scores: np.ndarray, images: Images, size: int) -> list[xr.DataArray]:
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
        self, path: Path, count: int = IMAGES, slab: int = 8, size: int = 5, neurons: int = NEURONS
    ) -> tuple[ActivationStore, np.ndarray]:
        """Return a whole store of the model "tiny", and its scores, image first."""
        store = self.create(path, count, slab=slab, neurons=neurons)
        scores = self.scores(count, self.layout(neurons))
        with store.writing("tiny") as writer:
            for batch in self.batches(scores, self.images(count), size):
                writer.write(batch)
        return store, scores

    def contents(self, path: Path) -> dict[str, bytes]:
        return {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file()}


@pytest.fixture(scope="session")
def made() -> Builders:
    return Builders()


@pytest.fixture(scope="session")
def begin(made: Builders) -> Callable[..., AbstractContextManager[ActivationStore]]:
    """Return what begins or resumes a capture of 21 images in slabs of 8."""

    def begin(
        place: Any, *, lock: Any = "take", **changes: Any
    ) -> AbstractContextManager[ActivationStore]:
        return open_for_capture(place, made.settings(**changes), lock=lock)

    return begin


@pytest.fixture(scope="session")
def slab(made: Builders) -> Callable[[int], np.ndarray]:
    """Return what makes a slab of that capture, by its number."""

    def slab(number: int) -> np.ndarray:
        return made.as_slab(made.scores(IMAGES)[number * 8 : number * 8 + 8])

    return slab


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.zarr"
