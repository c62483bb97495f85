"""Score a neuron by how far its activations reach over the images."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import xarray as xr

from iarmem_plugin import Metric, hookimpl


class Spread(Metric):
    """Score a neuron by the range of its activations over images."""

    name = "spread"

    def __init__(self) -> None:
        self._bounds: xr.Dataset | None = None

    def update(self, activations: xr.DataArray) -> None:
        """Widen the range by a batch of images."""
        low, high = activations.min("image"), activations.max("image")
        self.merge(xr.Dataset({"low": low, "high": high}))

    def state(self) -> xr.Dataset:
        """Return the smallest and the largest activation of each neuron."""
        return xr.Dataset() if self._bounds is None else self._bounds

    def merge(self, state: xr.Dataset) -> None:
        """Widen the range by that of other images."""
        if not state:
            return
        if self._bounds is not None:
            state = xr.Dataset(
                {
                    "low": np.minimum(self._bounds["low"], state["low"]),
                    "high": np.maximum(self._bounds["high"], state["high"]),
                }
            )
        self._bounds = state

    def compute(self) -> xr.DataArray:
        """Return the width of the range, in the activations' unit, 0 or more."""
        if self._bounds is None:
            raise ValueError("no images: call update or merge first")
        score = (self._bounds["high"] - self._bounds["low"]).rename("score")
        return score.assign_coords(valid=score.notnull())


@hookimpl
def provide_metrics() -> Iterable[type[Metric]]:
    """Return the metric."""
    return [Spread]
