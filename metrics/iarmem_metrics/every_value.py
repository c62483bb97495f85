"""The values of every image, for statistics that no running number gives, such as a median."""

from __future__ import annotations

import numpy as np
import xarray as xr
from jaxtyping import Float

from iarmem_metrics.stream import NEURONS


class EveryValue:
    """Keeps each image's activations; its memory grows with the images.

    Attributes:
        ids: global ids of the images, in the order they came in.
    """

    def __init__(self) -> None:
        self.ids: list[int] = []
        self._values: list[np.ndarray] = []

    def take(self, activations: xr.DataArray) -> None:
        """Copy the values of a batch, dims (block, scale, neuron, image)."""
        values = activations.variable.transpose("image", *NEURONS).to_numpy()
        self._add(activations.coords.variables["image"].to_numpy(), values.copy())

    def add_to(self, state: xr.Dataset) -> xr.Dataset:
        """Return a state with the values in the order of its ``images``: ascending ids."""
        if not self.ids:
            return state
        values = np.concatenate(self._values)[np.argsort(self.ids)]
        return state.assign(values=(("image", *NEURONS), values))

    def merge(self, state: xr.Dataset) -> None:
        """Add the values of another run's state."""
        values = state["values"].transpose("image", *NEURONS).to_numpy()
        self._add(state["images"].to_numpy(), values)

    def median_of_others(self) -> Float[np.ndarray, "block scale_neuron"]:
        """Return each neuron's median over the images without the largest, float64.

        Of an even number of images it is the mean of the two in the middle.
        """
        values = [part.reshape(*part.shape[:2], -1) for part in self._values]
        middle = len(self.ids) - 2  # twice the place of the middle among the others
        medians = []
        for block in range(values[0].shape[1]):
            ordered = np.sort(np.concatenate([part[:, block] for part in values]), axis=0)
            low, high = ordered[middle // 2], ordered[(middle + 1) // 2]
            medians.append((low.astype(np.float64) + high) / 2)
        return np.stack(medians)

    def _add(self, ids: np.ndarray, values: np.ndarray) -> None:
        self.ids += ids.astype(int).tolist()
        self._values.append(values)
