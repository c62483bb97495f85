"""ActivationStore: zarr on disk, xarray in hand, batches in between."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
import zarr
from jaxtyping import Bool
from zarr.codecs import BloscCodec, Crc32cCodec

from iarmem_plugin.errors import (
    CorruptStoreError,
    IncompleteCaptureError,
    InputError,
    UnknownModelError,
)
from iarmem_plugin.images import Images
from iarmem_plugin.layout import ModelLayout
from iarmem_plugin.slabs import SlabWriter
from iarmem_plugin.store_format import (
    ARRAYS,
    DIMS,
    FORMAT,
    FORMAT_VERSION,
    check_slab,
    chunks_and_shards,
    group_attributes,
    group_name,
    model_groups,
    read_node,
    require_store,
)

if TYPE_CHECKING:
    from iarmem_plugin.tracing import ImageARModel

Array = zarr.Array[Any]


class ActivationStore:
    """Activations of one or more models on the same disk, one zarr group a model.

    ``xr.open_datatree(path, engine="zarr", consolidated=False)`` reads it without this package;
    A slab of consecutive images is the unit of
    writing: its images count as captured only once all of them are on disk.
    """

    def __init__(self, path: Path | str, mode: Literal["r", "r+"] = "r") -> None:
        """Open a store; see `open`."""
        self.path = Path(path)
        self.mode = mode
        require_store(self.path)

    @classmethod
    def open(cls, path: Path | str, mode: Literal["r", "r+"] = "r") -> ActivationStore:
        """Open a store to read (``"r"``) or to write (``"r+"``).

        Raises:
            FileNotFoundError: if there is nothing at the path.
            NotAStoreError: if it holds something else.
            StoreVersionError: if a newer release wrote it.
        """
        return cls(path, mode)

    @classmethod
    def create(
        cls,
        path: Path | str,
        *,
        model: str,
        layout: ModelLayout,
        images: Images,
        slab: int = 256,
        attrs: Mapping[str, Any] | None = None,
    ) -> ActivationStore:
        """Lay out an empty store for one model, or add a model to an existing store.

        Args:
            path: of the store, by custom ``<name>.zarr``.
            model: the model's name.
            layout: its blocks, scales and neurons.
            images: the images to be captured, in order.
            slab: images committed together, K.
            attrs: what else is known, of JSON types: ``checkpoint_sha256``, ``adapter``,
                ``adapter_version``, and ``provenance``, a mapping.

        Raises:
            InputError: if the store holds the model already, or an attribute is not JSON.
            NotAStoreError: if the path holds something else.
        """
        root = Path(path)
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            require_store(root)
        name = group_name(model)
        if root.exists() and name in model_groups(root):
            raise InputError(f"{root} holds activations of {name!r} already; name a new store")
        if slab < 1 or len(images) == 0:
            raise InputError(f"a slab of {slab} and {len(images)} images; both must be 1 or more")
        attributes = group_attributes(model, layout, images, slab, attrs or {})
        if not root.exists() or not any(root.iterdir()):
            version: dict[str, Any] = {"format": FORMAT, "format_version": FORMAT_VERSION}
            zarr.open_group(root, mode="w", attributes=version)
        group = zarr.open_group(root / name, mode="w", attributes=attributes)
        _create_activation(group, layout, len(images), slab)
        _create_coordinates(group, name, layout, images, slab)
        group.attrs["layout_ready"] = True
        return cls(root, "r+")

    @classmethod
    def keep(
        cls,
        path: Path | str,
        model: ImageARModel,
        images: Images,
        batches: Iterable[xr.DataArray],
        *,
        slab: int = 256,
        attrs: Mapping[str, Any] | None = None,
    ) -> Iterator[xr.DataArray]:
        """Pass captured batches on, and write them to a new store on the way.

        Raises:
            InputError: if the store holds the model already.
            IncompleteCaptureError: if the batches end before the images do.
        """
        name = model.adapter.variant.name
        store = cls.create(
            path, model=name, layout=model.layout, images=images, slab=slab, attrs=attrs
        )
        try:
            with store.writer(name) as writer:
                for batch in batches:
                    writer.write(batch)
                    yield batch
        except BaseException:
            store.remove(name)
            raise

    @property
    def models(self) -> tuple[str, ...]:
        """Return the names of the models in the store."""
        return tuple(model_groups(self.path))

    @property
    def activation(self) -> xr.DataArray:
        """Return the lazy activations of the store's only model; see `dataset`."""
        activation: xr.DataArray = self.dataset()["activation"]
        return activation

    def dataset(
        self, model: str | None = None, partial: Literal["error", "drop", "keep"] = "error"
    ) -> xr.Dataset:
        """Return one model's activations and coordinates; nothing is read until it is used.

        Args:
            model: may be left out where the store holds one.
            partial: what to do if images are not captured: refuse, leave them out, or show NaN.

        Raises:
            UnknownModelError: if the store does not hold the model.
            IncompleteCaptureError: if images are missing and partial is ``"error"``.
            CorruptStoreError: if one of the model's arrays is missing or unreadable.
        """
        name = self._checked(model)
        data: xr.Dataset = xr.open_zarr(self.path, group=name, consolidated=False, chunks=None)
        captured = data["captured"].to_numpy()
        if captured.all() or partial == "keep":
            return data
        if partial == "drop":
            return data.isel(image=np.flatnonzero(captured))
        slab = int(data.attrs["slab"])
        done = sum(bool(captured[low : low + slab].all()) for low in range(0, captured.size, slab))
        raise IncompleteCaptureError(
            f"{int(captured.sum())} of {captured.size} images of {name!r} are captured "
            f"({done} of {-(-captured.size // slab)} slabs); finish the capture, or open with "
            'partial="drop"'
        )

    def batches(self, model: str | None = None) -> Iterator[xr.DataArray]:
        """Yield the activations as `capture` does, a slab at a time.

        Yields:
            float32, dims (block, scale, neuron, image); coordinates ``image`` and ``label``.

        Raises:
            IncompleteCaptureError: if not all images are captured.
            CorruptStoreError: if data are missing or damaged; the message names block and images.
        """
        self.verify(model)
        data = self.dataset(model)
        slab = int(data.attrs["slab"])
        for low in range(0, data.sizes["image"], slab):
            part = data["activation"].isel(model=0, image=slice(low, low + slab))
            yield _with_plain_strings(_loaded(part.drop_vars(["model", "captured"]), low))

    def put(self, model: str, slab: int, activations: np.ndarray) -> None:
        """Write one slab: its data first, then, once they are on disk, its marker.

        Args:
            model: the model's name.
            slab: number of the slab, from 0.
            activations: float32, dims (model=1, block, scale, neuron, image).

        Raises:
            InputError: if shape or dtype do not fit, or the store was opened to read.
            NonFiniteActivationError: naming block, scale and image. Nothing is written then.
        """
        model = self._checked(model)
        group, array = self._writable(model)
        low, high = self._bounds(group, array, slab)
        _, blocks, scales, neurons, _ = array.shape
        check_slab(activations, (1, blocks, scales, neurons, high - low), low)
        for block in range(blocks):
            array[:, block : block + 1, :, :, low:high] = activations[:, block : block + 1]
        _sync_to_disk([self._shard(model, array, block, slab) for block in range(blocks)])
        captured = group["captured"]
        captured[low:high] = True  # type: ignore[index]  # an array: checked when opened

    def writer(self, model: str) -> SlabWriter:
        """Return a context manager that gathers captured batches into slabs and writes them."""
        group, array = self._writable(model)
        return SlabWriter(
            lambda slab, activations: self.put(model, slab, activations),
            images=np.asarray(group["image"][:]),  # type: ignore[index]  # an array
            shape=(array.shape[1], array.shape[2], array.shape[3]),
            slab=int(group.attrs["slab"]),  # type: ignore[arg-type]  # written as an integer
        )

    def verify(self, model: str | None = None) -> None:
        """Check that every shard of every captured slab is there.

        Raises:
            CorruptStoreError: naming the first block and images that are missing.
        """
        name = self._checked(model)
        group = zarr.open_group(self.path / name, mode="r")
        array, slab = _activation(group), int(group.attrs["slab"])  # type: ignore[arg-type]
        captured = np.asarray(group["captured"][:])  # type: ignore[index]
        for number in range(-(-captured.size // slab)):
            if not captured[number * slab : (number + 1) * slab].any():
                continue
            for block in range(array.shape[1]):
                shard = self._shard(name, array, block, number)
                if not shard.is_file() or shard.stat().st_size == 0:
                    last = min((number + 1) * slab, captured.size) - 1
                    raise CorruptStoreError(
                        f"{name}: block {block}, images {number * slab}-{last} are marked as "
                        "captured, but their data are missing; capture them again"
                    )

    def remove(self, model: str) -> None:
        """Delete a model's activations; a store without a model is deleted whole.

        Raises:
            UnknownModelError: if the store does not hold the model.
        """
        self._writable(model)
        shutil.rmtree(self.path / self._checked(model))
        if not self.models:
            shutil.rmtree(self.path)

    def captured(self, model: str | None = None) -> Bool[np.ndarray, " image"]:
        """Return which images are captured."""
        return self.dataset(model, partial="keep")["captured"].to_numpy()

    def _checked(self, model: str | None) -> str:
        names = self.models
        only = names[0] if len(names) == 1 else ""
        name = only if model is None else group_name(model)
        if name not in names:
            given = "no model was named" if model is None else f"there is no {name!r}"
            raise UnknownModelError(
                f"{given} in {self.path}; it holds {', '.join(names) or 'none'}"
            )
        for array in ARRAYS:
            if read_node(self.path / name / array) is None:
                raise CorruptStoreError(f"{name} in {self.path} has no {array!r}")
        return name

    def _writable(self, model: str) -> tuple[zarr.Group, Array]:
        if self.mode != "r+":
            raise InputError(f"{self.path} was opened to read; open it with mode='r+'")
        group = zarr.open_group(self.path / self._checked(model), mode="r+")
        return group, _activation(group)

    def _bounds(self, group: zarr.Group, array: Array, slab: int) -> tuple[int, int]:
        size = int(group.attrs["slab"])  # type: ignore[arg-type]  # written as an integer
        slabs = -(-array.shape[4] // size)
        if not 0 <= slab < slabs:
            raise InputError(f"slab {slab} was given; there are slabs 0 to {slabs - 1}")
        return slab * size, min((slab + 1) * size, array.shape[4])

    def _shard(self, model: str, array: Array, block: int, slab: int) -> Path:
        key = array.metadata.encode_chunk_key((0, block, 0, 0, slab))
        return self.path / model / "activation" / key


def _create_activation(group: zarr.Group, layout: ModelLayout, images: int, slab: int) -> None:
    scales, neurons = len(layout.scales), layout.neurons_per_block
    chunks, shards = chunks_and_shards(neurons, scales, slab)
    group.create_array(
        "activation",
        shape=(1, layout.num_blocks, scales, neurons, images),
        dtype="float32",
        chunks=chunks,
        shards=shards,
        compressors=[BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"), Crc32cCodec()],
        fill_value=float("nan"),  # a missing shard must not read as 0
        dimension_names=DIMS,
        attributes={
            "long_name": "mean absolute activation after GELU",
            "units": "1",
            "cell_methods": "token: mean (absolute value)",
            "coordinates": "image_path label captured",
        },
    )


def _create_coordinates(
    group: zarr.Group, model: str, layout: ModelLayout, images: Images, slab: int
) -> None:
    scales = range(len(layout.scales))
    _coordinate(group, "model", "model", [model], "string")
    _coordinate(group, "block", "block", range(layout.num_blocks), "int64")
    _coordinate(group, "scale", "scale", scales, "int64")
    _coordinate(group, "scale_name", "scale", [s.name for s in layout.scales], "string")
    _coordinate(group, "scale_size", "scale", [len(s.tokens) for s in layout.scales], "int32")
    _coordinate(group, "neuron", "neuron", range(layout.neurons_per_block), "int32")
    _coordinate(group, "image", "image", images.ids, "int64")
    _coordinate(group, "image_path", "image", images.paths, "string")
    _coordinate(group, "label", "image", images.labels, "int32")
    group.create_array(
        "captured",
        shape=(len(images),),
        dtype="bool",
        chunks=(slab,),
        fill_value=False,
        dimension_names=("image",),
        attributes={"long_name": "whether the image's activations are on disk"},
    )


def _coordinate(
    group: zarr.Group, name: str, dim: str, values: Sequence[Any] | np.ndarray, dtype: str
) -> None:
    kind = np.dtypes.StringDType() if dtype == "string" else np.dtype(dtype)
    data = np.asarray(values, kind)
    group.create_array(name, data=data, chunks=data.shape, dimension_names=(dim,))


def _activation(group: zarr.Group) -> Array:
    array = group["activation"]
    if not isinstance(array, zarr.Array):
        raise CorruptStoreError(f"{group.store_path} has a group in place of 'activation'")
    return array


def _loaded(part: xr.DataArray, low: int) -> xr.DataArray:
    try:
        return part.load()
    except (ValueError, RuntimeError) as error:  # a checksum or a codec
        images = f"images {low}-{low + part.sizes['image'] - 1}"
        raise CorruptStoreError(
            f"block {_damaged_block(part)}, {images} are damaged ({error}); capture them again"
        ) from error


def _damaged_block(part: xr.DataArray) -> str:
    for block in range(part.sizes["block"]):
        try:
            part.isel(block=block).load()
        except (ValueError, RuntimeError):
            return str(block)
    return "unknown"


def _with_plain_strings(part: xr.DataArray) -> xr.DataArray:
    names = [name for name, coordinate in part.coords.items() if coordinate.dtype.kind == "T"]
    return part.assign_coords(
        {
            name: (part[name].dims, part[name].to_numpy().astype(object).astype(str))
            for name in names
        }
    )


def _sync_to_disk(files: list[Path]) -> None:
    folders = {parent for file in files for parent in list(file.parents)[:6]}
    for path in [*files, *sorted(folders, reverse=True)]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
