"""CheckedArray: activations read on demand, and an error in place of what is not there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool
from xarray.backends import BackendArray
from xarray.core import indexing

from iarmem_plugin.activations.slabs import Slabs
from iarmem_plugin.errors import CorruptStoreError, InputError
from iarmem_plugin.store.format import DIMS
from iarmem_plugin.store.group import ModelGroup
from iarmem_plugin.store.objects import refuse_fused_pipeline
from iarmem_plugin.store.shards import DAMAGE

MAX_STACK_BYTES = 4_000_000_000


class CheckedArray(BackendArray):
    """A zarr array as xarray reads it; damage is named by block and images.

    An absent shard reads as the fill value, NaN, without a word. Since NaN is never written, NaN
    of a captured image is such a shard.
    """

    def __init__(self, group: ModelGroup, captured: Bool[np.ndarray, " image"]) -> None:
        """Wrap a group's activations, dims (model, block, scale, neuron, image).

        Args:
            group: arrays of one model.
            captured: whether each image must be there.
        """
        self._group, self._captured = group, captured
        self.shape, self.dtype = group.activation.shape, group.activation.dtype

    def __getitem__(self, key: Any) -> Any:
        """Read a selection.

        Raises:
            CorruptStoreError: part of it is missing or damaged.
        """
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        refuse_fused_pipeline()
        key = tuple(_simple(part, size) for part, size in zip(key, self.shape, strict=True))
        try:
            values = self._whole_shards(key)
            if values is None:
                values = self._group.read_part(key)
        except DAMAGE as error:
            raise self._damage(key, f"are damaged ({error})") from error
        captured = np.asarray(self._captured[key[-1]])
        if _has_nan(values, captured):
            raise self._damage(key, "are marked as captured, but their data are missing")
        if not captured.all():  # whatever a killed writer left there
            values = np.where(captured, values, np.float32("nan"))
        return values

    def _whole_shards(self, key: tuple[Any, ...]) -> np.ndarray | None:
        """Read a selection that is made of whole shards; None if it is not."""
        model, block, *inner, image = key
        slabs = self._whole_slabs(image)
        whole = all(
            isinstance(part, slice) and range(size)[part] == range(size)
            for part, size in zip(inner, self.shape[2:4], strict=True)
        )
        blocks = np.atleast_1d(np.arange(self.shape[1])[block])
        one = np.atleast_1d(np.zeros(self.shape[0])[model]).size == 1
        if not (slabs and one and blocks.size and whole):
            return None
        values = self._group.read(blocks.tolist(), slabs)[None]
        return values[
            tuple(0 if isinstance(part, int | np.integer) else slice(None) for part in key)
        ]

    def _whole_slabs(self, image: Any) -> range:
        """Return the slabs of which a selection of images is made; none if it is not."""
        if not isinstance(image, slice) or not len(chosen := range(self.shape[4])[image]):
            return range(0)
        slabs = self._group.slabs
        first, last = slabs.of(chosen[0]), slabs.of(chosen[-1])
        ends = (slabs.bounds(first)[0], slabs.bounds(last)[1])
        whole = chosen.step == 1 and (chosen.start, chosen.stop) == ends
        return range(first, last + 1) if whole else range(0)

    def _damage(self, key: tuple[Any, ...], what: str) -> CorruptStoreError:
        blocks = np.atleast_1d(np.arange(self.shape[1])[key[1]]).tolist()
        name, positions = self._group.name, np.atleast_1d(np.arange(self.shape[4])[key[4]])
        slabs = sorted({self._group.slabs.of(int(position)) for position in positions})
        for block, number in product(blocks, slabs):
            if not self._is_sound(block, number):
                images = self._group.images_of(number)
                return CorruptStoreError(
                    f"{name}: block {block}, images {images[0]}-{images[-1]} {what}; "
                    f"invalidate slab {number} of {name!r} and capture again"
                )
        return CorruptStoreError(f"{name}: blocks {blocks}, slabs {slabs} {what}")

    def _is_sound(self, block: int, slab: int) -> bool:
        images = self._group.images_of(slab)
        try:
            values = self._group.read([block], range(slab, slab + 1))
        except DAMAGE:
            return False
        return not _has_nan(values, self._captured[images.start : images.stop])


def with_small_loaded(data: xr.Dataset) -> xr.Dataset:
    """Return the dataset with all but its activations in memory, so that damage is seen now."""
    return data.drop_vars("activation").load().assign(activation=data["activation"])


def with_checked(data: xr.Dataset, array: CheckedArray) -> xr.Dataset:
    """Return the dataset with its activations read through a checked array, still lazily."""
    attributes = data["activation"].attrs
    lazy = xr.Variable(DIMS, indexing.LazilyIndexedArray(array), attributes)
    return data.assign(activation=lazy)


def read_slabs(data: xr.Dataset, block: int | None = None) -> Iterator[xr.DataArray]:
    """Read a model's activations slab by slab, of all blocks or of one.

    Args:
        data: dataset as `ActivationStore.dataset` returns it.
        block: number of the only block to read.

    Yields:
        float32, dims (block, scale, neuron, image).
    """
    activation = data["activation"].isel(model=0).drop_vars(["model", "captured"])
    activation = with_plain_strings(activation)
    activation = activation.assign_coords({n: c.load() for n, c in activation.coords.items()})
    if block is not None:
        activation = activation.isel(block=[block])
    slabs = Slabs(activation.sizes["image"], int(data.attrs["slab"]))
    for slab in slabs:
        yield activation.isel(image=slice(*slabs.bounds(slab))).load()


def stacked(activations: Sequence[xr.DataArray], select: Mapping[str, Any]) -> xr.DataArray:
    """Read a selection of each model and join them; see `ActivationStore.stack`.

    Raises:
        InputError: the selections together exceed 4 GB, or a model does not have one.
    """
    try:
        chosen = [one.sel(dict(select)) for one in activations]
    except KeyError as error:
        raise InputError(f"not every model has {dict(select)}: {error}") from error
    if (size := sum(one.nbytes for one in chosen)) > MAX_STACK_BYTES:
        raise InputError(f"{size / 1e9:.0f} GB are selected; select blocks, neurons or images")
    return xr.concat(
        [with_plain_strings(one.load()) for one in chosen],
        dim="model",
        join="outer",
        coords="different",
        compat="equals",
        combine_attrs="override",
    )


def with_plain_strings(part: xr.DataArray) -> xr.DataArray:
    """Return the array with strings that every library understands in its coordinates."""
    names = [name for name, coordinate in part.coords.items() if coordinate.dtype.kind == "T"]
    plain = {name: part[name].to_numpy().astype(object) for name in names}
    return part.assign_coords({name: (part[name].dims, plain[name]) for name in names})


def _has_nan(values: np.ndarray, captured: np.ndarray) -> bool:
    there = values if captured.all() else values[..., captured]
    return there.size > 0 and bool(np.isnan(there.max()))  # NaN wins


def _simple(part: Any, size: int) -> Any:
    """Return an equal index that zarr takes, a slice where one will do: that is far quicker."""
    if isinstance(part, slice) and (part.step or 1) < 0:
        part = np.arange(size)[part]
    if isinstance(part, np.ndarray) and part.size and (np.diff(part) == 1).all():
        return slice(int(part[0]), int(part[-1]) + 1)
    return part
