"""UnitMem: how much one image stands out among all images that activate a neuron."""

from __future__ import annotations

import warnings
from typing import Literal, get_args

import numpy as np
import xarray as xr
from jaxtyping import Float

from iarmem_metrics.every_value import EveryValue
from iarmem_metrics.stream import Stream, rows
from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Metric
from iarmem_plugin.plugins.hookspecs import hookimpl

Reference = Literal["mean", "median"]
_TILE = 40_960  # neurons at a time: their running values stay in the cache
_ROUNDING = 1e-5  # relative error of a float32 sum that is not a sign of negative values
_IMAGES = 8  # images between two looks at which neurons have a new maximum


def unitmem(
    mu_max: Float[np.ndarray, "*neurons"],
    mu_rest: Float[np.ndarray, "*neurons"],
    *,
    eps: float = 0.0,
) -> Float[np.ndarray, "*neurons"]:
    """Compute UnitMem from the largest image score and the mean of the others.

    Args:
        mu_max: largest score over images, not negative.
        mu_rest: mean score of the other images, not negative.
        eps: number added to the denominator; anything but 0 makes the score depend on units.

    Returns:
        (mu_max - mu_rest) / (mu_max + mu_rest) in [0, 1]; 0 where both are 0; NaN where an
        argument is.

    Reference:
        Wang et al. 2024, the definition of UnitMem.

    >>> unitmem(np.array([1.0, 3.0, 0.0]), np.array([0.0, 1.0, 0.0]))
    array([1. , 0.5, 0. ])
    """
    total = mu_max + mu_rest + eps
    score: Float[np.ndarray, "*neurons"] = np.zeros_like(total)
    np.divide(mu_max - mu_rest, total, out=score, where=total != 0)
    return score


class UnitMem(Metric):
    """Stream UnitMem: a running maximum with its image, and a running sum, for each neuron.

    An image's score is its activation as given: the mean of absolute values over tokens, then
    over views. Ties for the maximum go to the smallest image id.

    Args:
        dtype: dtype of the running sum and of the scores, ``"float64"`` or ``"float32"``.
        eps: number added to the denominator; see `unitmem`.
        signed: whether negative values are taken, too; scores may then leave [0, 1], and a neuron
            whose maximum and rest do not add up to more than 0 is not valid.
        propagate: whether a neuron with a value that is not finite scores NaN and is not valid,
            instead of ending the run.
        reference: what the maximum is compared with: the ``"mean"`` of the other images, as in the
            paper's formula, or their ``"median"``, as in its published code. The median is exact
            and needs the values of all images: from a store a block at a time, else in memory.

    Raises:
        InputError: the reference is neither.

    Reference:
        Wang et al. 2024; Kowalczuk et al. 2025 (arXiv 2502.02514) use it per scale.
    """

    name = "unitmem"
    blockwise = True

    def __init__(
        self,
        dtype: str = "float64",
        *,
        eps: float = 0.0,
        signed: bool = False,
        propagate: bool = False,
        reference: Reference = "mean",
    ) -> None:
        if reference not in get_args(Reference):
            raise InputError(f"the reference {reference!r} was given; expected mean or median")
        self.keeps_images = reference == "median"
        self._every = EveryValue() if self.keeps_images else None
        self._eps, self._signed, self._propagate = eps, signed, propagate
        self._stream = Stream()
        self._dtype = np.dtype(dtype)
        self._last = -1  # largest image id so far
        self._maximum = np.empty((0, 0), np.float32)
        self._image = np.empty((0, 0), np.int64)
        self._sum = np.empty((0, 0), self._dtype)

    def update(self, activations: xr.DataArray) -> None:
        """Take a batch of finished images, dims (block, scale, neuron, image).

        Raises:
            InputError: if the batch does not fit the earlier ones, or an image comes twice.
            NonFiniteActivationError: naming block, scale and image, unless these are to
                propagate; the run is then over.
        """
        images = self._stream.take(activations)
        self._allocate(activations.dtype)
        if self._every is not None:
            self._every.take(activations)
        order = np.argsort(images)
        ordered = bool((order[1:] > order[:-1]).all())
        for block, values in rows(activations):
            batch = values if ordered else values[order]
            self._add(block, batch, images[order])
        if not self._propagate and not np.isfinite(self._sum).all():
            self._stream.refuse_non_finite(activations)
        self._last = max(self._last, int(images.max(initial=-1)))

    def state(self) -> xr.Dataset:
        """Return the running maximum, its image and the sum, with the ids of all images.

        For the median, all values are in it, too.
        """
        state = self._stream.state(maximum=self._maximum, top_image=self._image, total=self._sum)
        return state if self._every is None else self._every.add_to(state)

    def merge(self, state: xr.Dataset) -> None:
        """Add another run's state, in any order.

        Raises:
            InputError: if the neurons differ or an image is in both.
        """
        if not self._stream.merge(state):
            return
        maximum, image, total = (
            state[name].to_numpy().reshape(self._stream.shape[0], -1)
            for name in ("maximum", "top_image", "total")
        )
        self._allocate(maximum.dtype)
        better = (maximum > self._maximum) | ((maximum == self._maximum) & (image < self._image))
        np.copyto(self._maximum, maximum, where=better)
        np.copyto(self._image, image, where=better)
        self._sum += total
        if self._every is not None:
            self._every.merge(state)
        self._last = max(self._last, int(state["images"].max()))

    def compute(self) -> xr.DataArray:
        """Return UnitMem in [0, 1], dims (block, scale, neuron), with `valid` and `top_image`.

        A neuron that no image activates scores 0 and is not valid. After a single image all
        scores are NaN and none is valid.

        Raises:
            InputError: if there was no image, or if values were negative but not expected to be.
        """
        count = self._stream.need_images(self.name)
        maximum = self._maximum.astype(self._dtype)
        if count == 1:
            warnings.warn(
                "UnitMem of a single image is undefined: all scores are NaN", stacklevel=2
            )
        rest = self._rest(maximum, count)
        valid = maximum + rest > 0
        values = unitmem(maximum, rest, eps=self._eps)
        scores = self._stream.scores(values, valid, name=self.name)
        top_image = self._image.reshape(self._stream.shape)
        return scores.assign_coords(top_image=(scores.dims, top_image))

    def _rest(self, maximum: np.ndarray, count: int) -> np.ndarray:
        if count == 1:
            return np.full_like(maximum, np.nan)
        with np.errstate(invalid="ignore"):  # infinities that are to propagate
            rest: np.ndarray = (
                (self._sum - maximum) / (count - 1)
                if self._every is None
                else self._every.median_of_others().astype(self._dtype)
            )
        if self._signed:
            return rest
        if (rest < -_ROUNDING * np.abs(maximum)).any():
            raise InputError(
                "activations are negative, but UnitMem is defined on absolute values; give those, "
                "or use UnitMem(signed=True)"
            )
        np.maximum(rest, 0, out=rest)  # slightly negative by rounding
        return rest

    def _allocate(self, dtype: np.dtype) -> None:
        blocks, scales, neurons = self._stream.shape
        wanted = np.result_type(dtype, self._maximum.dtype)
        if self._sum.size == 0:
            self._maximum = np.full((blocks, scales * neurons), -np.inf, wanted)
            self._image = np.zeros((blocks, scales * neurons), np.int64)
            self._sum = np.zeros((blocks, scales * neurons), self._dtype)
        self._maximum = self._maximum.astype(wanted, copy=False)

    def _add(self, block: int, batch: np.ndarray, images: np.ndarray) -> None:
        for low in range(0, batch.shape[1], _TILE):
            tile = np.s_[low : low + _TILE]
            running = _Running(
                self._maximum[block, tile], self._image[block, tile], self._sum[block, tile]
            )
            for first in range(0, len(batch), _IMAGES):
                some = np.s_[first : first + _IMAGES]
                running.add(batch[some, tile], images[some], later=bool(images[first] > self._last))


class _Running:
    """Views of the running values of some neurons, with the one loop that is worth its speed."""

    def __init__(self, maximum: np.ndarray, image: np.ndarray, total: np.ndarray) -> None:
        self.maximum, self.image, self.total = maximum, image, total
        self._new = np.empty_like(maximum)

    def add(self, batch: np.ndarray, images: np.ndarray, *, later: bool) -> None:
        """Take rows of ascending image ids; `later` says that all are above those before."""
        new = self._new
        np.copyto(new, batch[0])
        for row in batch:
            np.maximum(new, row, out=new)
            np.add(self.total, row, out=self.total)
        better = new > self.maximum if later else new >= self.maximum
        chosen = better.nonzero()[0]
        if chosen.size:
            self._improve(chosen, batch, images)

    def _improve(self, chosen: np.ndarray, batch: np.ndarray, images: np.ndarray) -> None:
        largest = self._new.take(chosen)
        found = np.empty(chosen.size, np.int64)
        for row, image in zip(batch[::-1], images[::-1], strict=True):
            found[row.take(chosen) == largest] = image  # the smallest id is written last
        old = self.maximum.take(chosen)
        wins = (largest > old) | (found < self.image.take(chosen))
        self.maximum[chosen] = largest
        self.image[chosen[wins]] = found[wins]


@hookimpl
def provide_metrics() -> list[type[Metric]]:
    """Provide UnitMem."""
    return [UnitMem]
