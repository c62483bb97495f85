"""A metric that leaves some images out, so that one capture gives scores with and without them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import xarray as xr

from iarmem_plugin.checks import check_kind
from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Metric


class LeavingOut(Metric):
    """Score neurons by another metric, on all images of a capture but some.

    ``localize(model, images, metric=(UnitMem(), LeavingOut(UnitMem(), half)))`` runs the model
    once. The mean activation that `localize` returns beside the scores is that of all images.

    Args:
        metric: a fresh instance, which is used up.
        images: global ids of the images that it is not shown.

    Raises:
        InputError: no metric, or ids that are no whole numbers.
    """

    name = "leaving-out"

    def __init__(self, metric: Metric, images: Sequence[int] | np.ndarray) -> None:
        check_kind("the metric", metric, Metric, "a fresh instance of a metric")
        ids = np.asarray(images)
        if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
            raise InputError(f"ids of type {ids.dtype} were given; expected whole numbers")
        self._metric, self._ids = metric, ids
        self.keeps_images = metric.keeps_images

    @property
    def parameters(self) -> dict[str, object]:
        """Return the metric, and the ids that are left out."""
        return {"metric": self._metric.key, "images": sorted(map(int, self._ids))}

    @property
    def key(self) -> str:
        """Return the metric's, with how many images are left out and a digest of which."""
        digest = hashlib.sha256(np.sort(self._ids).astype("<i8").tobytes()).hexdigest()
        return f"{self._metric.key} without {len(self._ids)} images ({digest[:8]})"

    def update(self, activations: xr.DataArray) -> None:
        """Take those of a batch's images that are not left out."""
        kept = ~np.isin(activations["image"].to_numpy(), self._ids)
        if kept.any():
            self._metric.update(activations.isel(image=np.flatnonzero(kept)))

    def state(self) -> xr.Dataset:
        """Return the metric's own state."""
        return self._metric.state()

    def merge(self, state: xr.Dataset) -> None:
        """Add another run's state, which left out the same images."""
        self._metric.merge(state)

    def compute(self) -> xr.DataArray:
        """Return the metric's scores, dims (block, scale, neuron)."""
        return self._metric.compute()
