"""Mean activation: a control that any localization should be compared with."""

from __future__ import annotations

import numpy as np
import xarray as xr

from iarmem_metrics.stream import Stream, rows
from iarmem_plugin.interfaces import Metric
from iarmem_plugin.plugins.hookspecs import hookimpl


class MeanActivation(Metric):
    """Score a neuron by its mean activation over images; one that is never active is not valid."""

    name = "mean-activation"
    blockwise = True

    def __init__(self) -> None:
        self._stream = Stream()
        self._sum = np.empty((0, 0))

    def update(self, activations: xr.DataArray) -> None:
        """Take a batch of finished images, dims (block, scale, neuron, image).

        Raises:
            InputError: if the batch does not fit the earlier ones, or an image comes twice.
            NonFiniteActivationError: naming block, scale and image; the run is then over.
        """
        self._stream.take(activations)
        self._allocate()
        for block, batch in rows(activations):
            for row in batch:
                np.add(self._sum[block], row, out=self._sum[block])
        if not np.isfinite(self._sum).all():
            self._stream.refuse_non_finite(activations)

    def state(self) -> xr.Dataset:
        """Return the running sum, with the ids of all images."""
        return self._stream.state(total=self._sum)

    def merge(self, state: xr.Dataset) -> None:
        """Add another run's state, in any order.

        Raises:
            InputError: if the neurons differ or an image is in both.
        """
        if self._stream.merge(state):
            self._allocate()
            self._sum += state["total"].to_numpy().reshape(self._sum.shape)

    def compute(self) -> xr.DataArray:
        """Return mean activations, dims (block, scale, neuron), with `valid`.

        Raises:
            InputError: if there was no image.
        """
        mean = self._sum / self._stream.need_images(self.name)
        return self._stream.scores(mean, mean > 0, name=self.name)

    def _allocate(self) -> None:
        blocks, scales, neurons = self._stream.shape
        if self._sum.size == 0:
            self._sum = np.zeros((blocks, scales * neurons), np.float64)


@hookimpl
def provide_metrics() -> list[type[Metric]]:
    """Provide the mean activation."""
    return [MeanActivation]
