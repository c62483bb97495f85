"""SlabWriter: gathers captured batches into slabs, and writes them while the model goes on.

Less than a slab is never written.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float32, Int64

from iarmem_plugin.activations.slabs import Slabs
from iarmem_plugin.errors import IncompleteCaptureError, InputError


@dataclass(slots=True)
class _Slab:
    activations: Float32[np.ndarray, "1 block scale neuron image"]
    filled: Bool[np.ndarray, " image"]


class SlabWriter:
    """Takes batches of any size, and writes each slab in the background as soon as it is full.

    Batches in the order of the images keep two slabs in memory, the one that is being filled and
    the one that is being written; three where a batch straddles two.
    On leaving the context without an exception, every slab that was begun must have been filled.
    """

    def __init__(
        self,
        put: Callable[[int, np.ndarray], None],
        *,
        images: Int64[np.ndarray, " image"],
        shape: tuple[int, int, int],
        slab: int,
    ) -> None:
        """Start empty.

        Args:
            put: what writes a slab, given its number and its activations.
            images: global ids in the store's order.
            shape: numbers of blocks, scales and neurons.
            slab: number of images in a slab.
        """
        self._shape, self._slabs = shape, Slabs(len(images), slab)
        self._thread = SlabThread(put)
        self._positions = {int(image): position for position, image in enumerate(images)}
        self._open: dict[int, _Slab] = {}

    def __enter__(self) -> SlabWriter:
        """Return the writer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait for what is being written; after an exception, drop a slab that is half full.

        Raises:
            IncompleteCaptureError: images of a slab are missing.
            DiskFullError: there is no room for a slab.
        """
        try:
            if kind is None:
                self._thread.flush()
        finally:
            self._thread.close()
        if kind is None and self._open:
            missing = sum(int((~slab.filled).sum()) for slab in self._open.values())
            raise IncompleteCaptureError(
                f"{missing} images of {len(self._open)} slabs were not captured, so these slabs "
                "are not written; capture all images of the store"
            )

    def put(self, slab: int, activations: np.ndarray) -> None:
        """Write a whole slab in the background; see `ActivationStore.put`."""
        self._thread.put(slab, activations)

    def write(self, activations: xr.DataArray) -> None:
        """Take a batch of finished images, dims (block, scale, neuron, image).

        Raises:
            InputError: the neurons or the dtype do not fit the store, or an image is not in
                it or comes twice.
        """
        batch = activations.transpose("block", "scale", "neuron", "image")
        if batch.shape[:3] != self._shape or batch.dtype != np.float32:
            raise InputError(
                f"a batch of {batch.dtype} with {batch.shape[:3]} blocks, scales and neurons was "
                f"given; the store holds float32 with {self._shape}"
            )
        places = np.array([self._place(int(image)) for image in batch["image"].to_numpy()])
        numbers = np.array([self._slabs.of(int(place)) for place in places])
        for number in dict.fromkeys(numbers.tolist()):
            inside = np.flatnonzero(numbers == number)
            part = batch.isel(image=_simple(inside)).to_numpy()
            self._fill(number, places[inside] - self._slabs.bounds(number)[0], part)

    def _place(self, image: int) -> int:
        if image not in self._positions:
            raise InputError(f"image {image} is not one of the store's images")
        return self._positions[image]

    def _fill(self, number: int, places: np.ndarray, values: np.ndarray) -> None:
        if number not in self._open:
            self._open[number] = self._empty(number)
        slab = self._open[number]
        if slab.filled[places].any() or len(np.unique(places)) != len(places):
            raise InputError("an image was given twice; write each image once")
        slab.activations[0][..., _simple(places)] = values
        slab.filled[places] = True
        if slab.filled.all():
            del self._open[number]
            self.put(number, slab.activations)

    def _empty(self, number: int) -> _Slab:
        images = len(self._slabs.positions(number))
        return _Slab(np.empty((1, *self._shape, images), np.float32), np.zeros(images, bool))


class SlabThread:
    """One background thread that writes one slab at a time; the next one waits for it.

    ``put`` writes a slab, given its number and its activations.
    With the slab that is being filled, two are in memory.
    An error of the thread is raised by the next call, and no slab is written after it.
    """

    def __init__(self, put: Callable[[int, np.ndarray], None]) -> None:
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


def _simple(places: Int64[np.ndarray, " image"]) -> slice | np.ndarray:
    """Return an equal index, a slice where one will do: that copies five times as fast."""
    if (np.diff(places) == 1).all():
        return slice(int(places[0]), int(places[-1]) + 1)
    return places
