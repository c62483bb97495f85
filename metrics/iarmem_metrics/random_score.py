"""Random scores: the control that knows nothing of the activations."""

from __future__ import annotations

import numpy as np
import xarray as xr

from iarmem_metrics.stream import Stream
from iarmem_plugin.interfaces import Metric
from iarmem_plugin.plugins.hookspecs import hookimpl


class RandomScore(Metric):
    """Draw each neuron's score uniformly from [0, 1), by a seed; all neurons are valid.

    Args:
        seed: seed for drawing; it alone decides the scores of a model's neurons.
    """

    name = "random"

    def __init__(self, seed: int = 0) -> None:
        self._stream = Stream()
        self._seed = seed

    def update(self, activations: xr.DataArray) -> None:
        """Note which neurons there are, dims (block, scale, neuron, image).

        Raises:
            InputError: if the batch does not fit the earlier ones, or an image comes twice.
        """
        self._stream.take(activations)

    def state(self) -> xr.Dataset:
        """Return the ids of all images, and the axes."""
        return self._stream.state()

    def merge(self, state: xr.Dataset) -> None:
        """Add another run's state.

        Raises:
            InputError: if the neurons differ or an image is in both.
        """
        self._stream.merge(state)

    def compute(self) -> xr.DataArray:
        """Return the scores, dims (block, scale, neuron), with `valid`.

        Raises:
            InputError: if there was no image.
        """
        self._stream.need_images(self.name)
        scores = np.random.default_rng(self._seed).random(self._stream.shape)
        return self._stream.scores(scores, np.ones(self._stream.shape, bool), name=self.name)


@hookimpl
def provide_metrics() -> list[type[Metric]]:
    """Provide the random score."""
    return [RandomScore]
