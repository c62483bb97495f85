"""What a streaming metric has been given so far: the axes of its scores and the images it took."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

import numpy as np
import xarray as xr
from jaxtyping import Float, Int64

from iarmem_plugin.errors import InputError, NonFiniteActivationError

NEURONS = ("block", "scale", "neuron")
_TILE = 128  # neurons that are transposed at a time: in the cache, twice as fast as all at once


class Stream:
    """The bookkeeping that every streaming metric needs, and none of its arithmetic.

    It turns batches into contiguous rows, one for each image and block, refuses batches whose
    neurons differ from those before, and never takes an image twice. The first batch says which
    neurons there are.

    Attributes:
        images: global ids of the images taken.
        axes: coordinates of the scores, by dim.
        shape: number of blocks, of scales and of neurons.
    """

    def __init__(self) -> None:
        self.images: set[int] = set()
        self.axes: dict[str, xr.Variable] = {}
        self.shape: tuple[int, int, int] = (0, 0, 0)

    @property
    def started(self) -> bool:
        """Tell whether the neurons are known."""
        return self.shape != (0, 0, 0)

    def take(self, activations: xr.DataArray) -> Int64[np.ndarray, " image"]:
        """Note a batch, and return the global ids of its images.

        Args:
            activations: activations of the batch, dims (block, scale, neuron, image), with the
                coordinate ``image``.

        Raises:
            InputError: if dims or neurons are not as expected, or an image was taken before.
        """
        if set(activations.dims) != {*NEURONS, "image"} or "image" not in activations.coords:
            raise InputError(
                f"activations have dims {activations.dims}; expected (block, scale, neuron, image) "
                "with the coordinate 'image'"
            )
        self._agree(_axes(activations))
        ids = activations.coords.variables["image"].to_numpy()
        images: Int64[np.ndarray, " image"] = ids.astype(np.int64)
        self._note(images)
        return images

    def state(
        self, **arrays: Float[np.ndarray, "block neurons"] | Int64[np.ndarray, "block neurons"]
    ) -> xr.Dataset:
        """Return named arrays as a dataset, with the axes and the ids of the images taken."""
        images = xr.DataArray(np.array(sorted(self.images), np.int64), dims="image")
        if not self.started:
            return xr.Dataset({"images": images})
        data = {name: (NEURONS, array.reshape(self.shape).copy()) for name, array in arrays.items()}
        return xr.Dataset(data, coords=self.axes).assign(images=images)

    def merge(self, state: xr.Dataset) -> bool:
        """Note the images of another run's state; return False if it took none.

        Args:
            state: what the other run's `state` returned.

        Raises:
            InputError: if the neurons differ or an image is in both.
        """
        if state["images"].size == 0:
            return False
        self._agree(_axes(state))
        self._note(state["images"].to_numpy())
        return True

    def scores(self, values: np.ndarray, valid: np.ndarray, *, name: str) -> xr.DataArray:
        """Return scores with dims (block, scale, neuron) and the coordinate ``valid``."""
        scores = xr.DataArray(values.reshape(self.shape), coords=self.axes, dims=NEURONS)
        scores = scores.assign_coords(valid=(NEURONS, valid.reshape(self.shape)))
        return scores.rename("score").assign_attrs(metric=name, images=len(self.images))

    def need_images(self, name: str) -> int:
        """Return how many images were taken.

        Args:
            name: name of the metric, for the message.

        Raises:
            InputError: if there was no image.
        """
        if not self.images:
            raise InputError(f"{name} has seen no image; call update with at least one batch")
        return len(self.images)

    def refuse_non_finite(self, activations: xr.DataArray) -> NoReturn:
        """Raise, naming the place of the first value that is NaN or infinite."""
        bad = ~np.isfinite(activations.transpose("image", *NEURONS).to_numpy())
        if not bad.any():
            raise NonFiniteActivationError(
                f"the sum over images overflowed with {activations.dtype} activations; "
                "sum in float64"
            )
        image, block, scale, neuron = (int(axis[0]) for axis in bad.nonzero())
        place = activations.isel(image=image, block=block, scale=scale, neuron=neuron)
        raise NonFiniteActivationError(
            f"the activation of block {_label(place, 'block', block)}, "
            f"scale {_label(place, 'scale_name', scale)}, "
            f"neuron {_label(place, 'neuron', neuron)}, image {_label(place, 'image', image)} "
            f"is {place.item()}; expected finite numbers: check the weights and the dtype"
        )

    def _agree(self, axes: dict[str, xr.Variable]) -> None:
        if not self.started:
            self.axes = axes
            self.shape = (axes["block"].size, axes["scale"].size, axes["neuron"].size)
        for dim in NEURONS:
            if not np.array_equal(axes[dim].to_numpy(), self.axes[dim].to_numpy()):
                raise InputError(
                    f"the coordinate {dim!r} of this batch differs from that of earlier ones "
                    f"({axes[dim].size} and {self.axes[dim].size} values); "
                    "use one metric for each model"
                )

    def _note(self, images: Int64[np.ndarray, " image"]) -> None:
        given = images.tolist()
        twice = self.images.intersection(given)
        if twice or len(set(given)) != len(given):
            first = min(twice) if twice else max(given, key=given.count)
            raise InputError(
                f"image {first} was given twice; give each image once, with all its views averaged"
            )
        self.images.update(given)


def rows(
    activations: xr.DataArray,
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each block's number with its values as contiguous rows, dims (image, neurons).

    ``neurons`` runs over the scales and, within each, over its neurons.
    A batch that lies image-first in memory, as `capture` yields it, is not copied.
    """
    values = activations.variable.transpose("image", *NEURONS).to_numpy()
    for block in range(values.shape[1]):
        yield block, _image_first(values[:, block].reshape(len(values), -1))


def _image_first(values: np.ndarray) -> np.ndarray:
    if values.strides[1] == values.itemsize:
        return values
    copy = np.empty(values.shape, values.dtype)
    for low in range(0, values.shape[1], _TILE):
        copy[:, low : low + _TILE] = values[:, low : low + _TILE]
    return copy


def _axes(data: xr.DataArray | xr.Dataset) -> dict[str, xr.Variable]:
    known = data.coords.variables  # variables, since labelled arrays cost a millisecond a batch
    axes = {
        dim: known[dim] if dim in known else xr.Variable(dim, np.arange(data.sizes[dim]))
        for dim in NEURONS
    }
    return axes | {"scale_name": known["scale_name"]} if "scale_name" in known else axes


def _label(place: xr.DataArray, coordinate: str, position: int) -> object:
    return place[coordinate].item() if coordinate in place.coords else position
