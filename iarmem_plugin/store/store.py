"""ActivationStore: zarr on disk, xarray in hand, batches in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
import zarr
from jaxtyping import Bool, UInt8
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore, MemoryStore, StoreLike, StorePath

from iarmem_plugin import plugins
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import CorruptStoreError, IncompleteCaptureError, InputError
from iarmem_plugin.files import fsync
from iarmem_plugin.interfaces import Metric
from iarmem_plugin.interfaces.layout import ModelLayout
from iarmem_plugin.store.digests import digests
from iarmem_plugin.store.format import ARRAYS, FORMAT, FORMAT_VERSION, group_attributes, group_name
from iarmem_plugin.store.group import ModelGroup
from iarmem_plugin.store.integrity import model_groups, naming, require_model, require_store
from iarmem_plugin.store.layout import create_activation, create_coordinates
from iarmem_plugin.store.objects import FilePieces, Pieces, refuse_fused_pipeline
from iarmem_plugin.store.reading import (
    CheckedArray,
    slabs,
    stacked,
    with_checked,
    with_small_loaded,
)
from iarmem_plugin.store.writer import SlabWriter

Place = StoreLike
_SETTLED_AFTER = 10  # seconds, at the longest
Partial = Literal["error", "drop", "keep"]


class ActivationStore:
    """Activations of one or more models in one place, one zarr group a model.

    ``xr.open_datatree(path, engine="zarr", consolidated=False)`` reads it without this package.
    A slab of consecutive images is the unit of writing: its images count as captured only once
    all of them are on disk.
    """

    def __init__(self, place: Place, mode: Literal["r", "r+"] = "r") -> None:
        """Open a store; see `open`."""
        if mode not in ("r", "r+"):  # "w" would delete what is there
            raise InputError(f"mode {mode!r} was given; expected 'r' to read or 'r+' to write")
        self.mode = mode
        require_store(_ZarrObjects(_as_store(place, read_only=True)))
        self._store = _as_store(place, read_only=mode == "r")
        self._objects = _ZarrObjects(self._store)
        self.name = self._objects.name

    @classmethod
    def open(cls, place: Place, mode: Literal["r", "r+"] = "r") -> ActivationStore:
        """Open a store to read (``"r"``) or to write (``"r+"``).

        Args:
            place: a path, a URL of fsspec such as ``memory://x.zarr``, or any store of zarr.
            mode: what for.

        Raises:
            StoreNotFoundError: if there is nothing at the path.
            NotAStoreError: if it holds something else.
            StoreVersionError: if a newer release wrote it.
        """
        return cls(place, mode)

    @classmethod
    def create(
        cls,
        place: Place,
        *,
        model: str,
        layout: ModelLayout,
        images: Images,
        slab: int = 256,
        attrs: Mapping[str, Any] | None = None,
        keep_bits: int | None = None,
    ) -> ActivationStore:
        """Lay out an empty store for one model, or add a model to an existing store.

        Args:
            place: by custom ``<name>.zarr``; see `open`.
            model: the model's name.
            layout: its blocks, scales and neurons.
            images: the images to be captured, in order.
            slab: images committed together, K.
            attrs: what else is known, of JSON types: ``checkpoint_sha256``, ``adapter``,
                ``adapter_version``, and ``provenance``, a mapping.
            keep_bits: round activations to so many of the 23 mantissa bits; 13 halve the disk.

        Raises:
            InputError: if the store holds the model already, or an attribute is not JSON.
            NotAStoreError: if the path holds something else.
        """
        refuse_fused_pipeline()
        attributes = group_attributes(model, layout, images, slab, attrs or {}, keep_bits)
        objects, name = _ZarrObjects(_as_store(place, read_only=True)), group_name(model)
        if holds(place, name):
            raise InputError(
                f"{objects.name} holds activations of {name!r} already; name a new store"
            )
        store = _as_store(place, read_only=False)
        if objects.is_empty():
            version: dict[str, Any] = {"format": FORMAT, "format_version": FORMAT_VERSION}
            zarr.open_group(store, mode="a", attributes=version)  # another model may be begun now
        group = zarr.open_group(store, path=name, mode="w", attributes=attributes)
        create_activation(group, layout, len(images), slab)
        create_coordinates(group, name, layout, images, slab)
        _flush(objects.local, name)
        group.attrs.update({**digests(objects, name), "layout_ready": True})
        _flush(objects.local, name)
        return cls(place, "r+")

    @property
    def models(self) -> tuple[str, ...]:
        """Return the names of the models in the store."""
        return tuple(model_groups(self._objects))

    @property
    def activation(self) -> xr.DataArray:
        """Return the lazy activations of the store's only model; see `dataset`."""
        activation: xr.DataArray = self.dataset()["activation"]
        return activation

    def dataset(self, model: str | None = None, partial: Partial = "error") -> xr.Dataset:
        """Return one model's activations and coordinates; nothing is read until it is used.

        Args:
            model: may be left out where the store holds one.
            partial: what to do if images are not captured: refuse, leave them out, or show NaN.

        Raises:
            UnknownModelError: if the store does not hold the model.
            IncompleteCaptureError: if images are missing and partial is ``"error"``.
            CorruptStoreError: if part of the model is missing or unreadable; if that is found
                only when values are read, then from there.
        """
        _require_one_of(get_args(Partial), partial)
        group = self.group(model)
        captured = group.captured()
        if partial == "error" and not captured.all():
            done = len(group.slabs) - len(group.pending())
            raise IncompleteCaptureError(
                f"{int(captured.sum())} of {captured.size} images of {group.name!r} are captured "
                f"({done} of {len(group.slabs)} slabs); resume with the same command, or open "
                'with partial="drop"'
            )
        if partial != "keep":
            group.verify()
        with naming(f"{group.name} in {self.name}"):
            data = xr.open_zarr(self._store, group=group.name, consolidated=False, chunks=None)
            data = with_small_loaded(data[list(ARRAYS)])
        data = with_checked(data, CheckedArray(group, captured))
        return data.isel(image=np.flatnonzero(captured)) if partial == "drop" else data

    def batches(
        self,
        model: str | None = None,
        *,
        block: int | None = None,
        partial: Literal["error", "drop"] = "error",
    ) -> Iterator[xr.DataArray]:
        """Yield the activations as `capture` does, a slab at a time.

        Args:
            model: may be left out where the store holds one.
            block: read one block alone; a slab is then one request and 1/blocks of the memory.
            partial: ``"error"`` or ``"drop"``; see `dataset`.

        Yields:
            float32, dims (block, scale, neuron, image); coordinates ``image`` and ``label``.

        Raises:
            IncompleteCaptureError: if not all images are captured.
            CorruptStoreError: if data are missing or damaged; the message names block and images.
        """
        _require_one_of(("error", "drop"), partial)
        data = self.dataset(model, partial)
        if block is not None and block not in range(data.sizes["block"]):
            raise InputError(f"there is no block {block}; there are 0 to {data.sizes['block'] - 1}")
        yield from slabs(data, block)

    def score(
        self, metric: str | Callable[[], Metric] = "unitmem", model: str | None = None
    ) -> xr.DataArray:
        """Score the neurons of a captured model in bounded memory, however many images.

        A metric that is `Metric.blockwise` reads block by block, then slab by slab, all scales
        together: each request is one whole shard. Others read a slab of all blocks at a time.

        Args:
            metric: a name, or what makes a fresh instance, such as the class.
            model: may be left out where the store holds one.

        Returns:
            as `Metric.compute`.

        Raises:
            IncompleteCaptureError: if not all images are captured.
            CorruptStoreError: if data are missing or damaged.
        """
        make = plugins.find("metric", metric) if isinstance(metric, str) else metric
        data = self.dataset(model)
        if not make().blockwise:
            return _score(make(), slabs(data))
        blocks = [_score(make(), slabs(data, block)) for block in range(data.sizes["block"])]
        return xr.concat(
            blocks,
            dim="block",
            coords="minimal",
            compat="override",
            join="exact",
            combine_attrs="override",
        )

    def stack(
        self,
        models: Sequence[str] | None = None,
        *,
        select: Mapping[str, Any] | None = None,
        partial: Partial = "error",
    ) -> xr.DataArray:
        """Join a small selection of several models' activations along ``model``.

        The selection is read into memory. Where models differ in neurons, scales or images, what
        one of them does not have is NaN.

        Args:
            models: names; all by default.
            select: what to take of each, as for xarray's ``sel``, such as
                ``{"block": 3, "neuron": [5, 9]}``.
            partial: see `dataset`.

        Returns:
            dims (model, ...); coordinates that differ between models have the dim ``model``, too.

        Raises:
            InputError: if the selection is not small, or a model does not have it.
        """
        names = self.models if models is None else tuple(models)
        if not names:
            raise InputError("no model was given; name one or more")
        return stacked([self.dataset(name, partial)["activation"] for name in names], select or {})

    def captured(self, model: str | None = None) -> Bool[np.ndarray, " image"]:
        """Return which images are captured."""
        return self.group(model).captured()

    def pending(self, model: str | None = None) -> list[int]:
        """Return the numbers of the slabs that are not captured."""
        return self.group(model).pending()

    def images_of(self, model: str | None, slab: int) -> range:
        """Return the positions of a slab's images in the list of images.

        Raises:
            InputError: if there is no such slab.
        """
        return self.group(model).images_of(slab)

    def writing(self, model: str) -> SlabWriter:
        """Return a context manager that gathers captured batches into slabs and writes them.

        It writes in one background thread; an error there is raised by the next call.
        """
        group = self._writable(model)
        return SlabWriter(
            group.put,
            images=group.coordinate("image"),
            shape=group.shape[:3],
            slab=group.slab_size,
        )

    def put(self, model: str, slab: int, activations: np.ndarray) -> None:
        """Write one slab: its data first, then, once they are on disk, its marker.

        Args:
            model: the model's name.
            slab: number of the slab, from 0.
            activations: float32, dims (model=1, block, scale, neuron, image).

        Raises:
            InputError: if shape or dtype do not fit, or the store was opened to read.
            NonFiniteActivationError: naming block, scale and image. Nothing is written then.
            DiskFullError: in the middle of the slab, which is then not marked.
        """
        self._writable(model).put(slab, activations)

    def invalidate(self, model: str, slab: int) -> None:
        """Mark a slab as not captured, and delete its data; resuming captures it again.

        Raises:
            InputError: if there is no such slab, or the store was opened to read.
        """
        self._writable(model).invalidate(slab)

    def verify(self, model: str | None = None, *, deep: bool = False) -> None:
        """Check that every shard of every captured slab is there.

        Args:
            model: may be left out where the store holds one.
            deep: read everything, so that the checksums speak.

        Raises:
            CorruptStoreError: naming the first block and images that are missing or damaged.
        """
        self.group(model).verify(deep=deep)

    def group(self, model: str | None = None) -> ModelGroup:
        """Return one model's arrays, once their metadata are as expected.

        Raises:
            UnknownModelError: if the store does not hold the model.
            CorruptStoreError: naming the array that is missing or unreadable.
        """
        refuse_fused_pipeline()
        names = self.models
        only = names[0] if len(names) == 1 else ""
        name = only if model is None else group_name(model)
        require_model(self._objects, model, name)
        try:
            arrays = zarr.open_group(self._store, path=name, mode=self.mode, use_consolidated=False)
            return ModelGroup(arrays, self._objects, name)
        except (ValueError, KeyError, TypeError) as error:  # an unknown dtype or codec
            raise CorruptStoreError(f"{name} in {self.name} cannot be opened: {error}") from error

    def _writable(self, model: str) -> ModelGroup:
        if self.mode != "r+":
            raise InputError(f"{self.name} was opened to read; open it with mode='r+'")
        return self.group(model)


def _require_one_of(choices: Sequence[str], given: str) -> None:
    if given not in choices:
        raise InputError(f"partial={given!r} was given; expected {' or '.join(map(repr, choices))}")


def _score(metric: Metric, batches: Iterable[xr.DataArray]) -> xr.DataArray:
    for batch in batches:
        metric.update(batch)
    return metric.compute()


def local_folder(place: Place) -> Path | None:
    """Return the folder of a store, if it is one on this machine."""
    return _ZarrObjects(_as_store(place, read_only=True)).local


def holds(place: Place, name: str) -> bool:
    """Tell whether there is a store with a model's group, laid out or damaged.

    Raises:
        NotAStoreError: if there is something else.
    """
    objects = _ZarrObjects(_as_store(place, read_only=True))
    if objects.is_empty():
        return False
    require_store(objects)
    return name in model_groups(objects)


def _flush(store: Path | None, group: str) -> None:
    """Wait until the metadata and coordinates of a group in a folder are on disk."""
    if store is not None:
        inside = sorted((store / group).rglob("*"), reverse=True)
        for path in [*inside, store / group, store / "zarr.json", store, store.absolute().parent]:
            fsync(path)


class _ZarrObjects:
    """A zarr store's bytes; see `Objects`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.local = self._store.root if isinstance(self._store, LocalStore) else None
        self.name = str(self.local or self._store)

    def get(self, key: str) -> bytes | None:
        if self.local is not None:  # zarr makes no difference between a folder and nothing
            file = self.local / key
            return file.read_bytes() if file.is_file() else None
        buffer = sync(self._store.get(key, default_buffer_prototype()))
        return None if buffer is None else buffer.to_bytes()

    @contextmanager
    def opened(self, keys: list[str]) -> Iterator[list[Pieces | None]]:
        if self.local is None:
            yield [None if one is None else one.as_numpy_array() for one in sync(self._got(keys))]
            return
        with ExitStack() as stack:
            paths = [self.local / key for key in keys]
            yield [
                FilePieces(stack.enter_context(FileIO(path))) if path.is_file() else None
                for path in paths
            ]

    async def _got(self, keys: list[str]) -> list[Any]:
        prototype = default_buffer_prototype()
        return await asyncio.gather(*(self._store.get(key, prototype) for key in keys))

    def set_large(self, key: str, data: UInt8[np.ndarray, " byte"]) -> None:
        kept = data if self.local is not None else data.copy()  # a store in memory keeps it
        sync(self._store.set(key, default_buffer_prototype().buffer.from_array_like(kept)))

    def settle(self) -> None:
        async def wait() -> None:
            if others := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(others, timeout=_SETTLED_AFTER)

        sync(wait())

    def sizes(self, keys: list[str]) -> list[int]:
        if self.local is not None:  # a folder has a size, too
            files = [self.local / key for key in keys]
            return [file.stat().st_size if file.is_file() else 0 for file in files]

        async def size(key: str) -> int:
            try:
                return await self._store.getsize(key)
            except FileNotFoundError:
                return 0

        async def all_sizes() -> list[int]:
            return await asyncio.gather(*(size(key) for key in keys))

        return sync(all_sizes())

    def delete(self, keys: list[str]) -> None:
        for key in keys:
            sync(self._store.delete(key))

    def children(self, node: str = "") -> list[str]:
        if self.local is not None:
            folder = self.local / node
            names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        else:
            names = sync(self._listed(node))
        return [name for name in names if not name.endswith(".partial")]

    async def _listed(self, node: str) -> list[str]:
        return [key async for key in self._store.list_dir(node)]

    def is_empty(self) -> bool:
        is_file = self.local is not None and self.local.is_file()
        return not is_file and not self.children()


def _from_url(url: str, *, read_only: bool) -> Store:
    try:
        return FsspecStore.from_url(url, read_only=read_only)
    except (ValueError, ImportError) as error:
        raise InputError(f"the store at {url} cannot be opened: {error}") from error


def _as_store(place: Place, *, read_only: bool) -> Store:
    if isinstance(place, Store):
        return place
    if isinstance(place, str) and "://" in place:
        kind, _, path = place.partition("://")
        if kind not in ("file", "local"):
            return _from_url(place, read_only=read_only)
        place = Path(path)
    if isinstance(place, str | Path):
        if not Path(place).name:
            raise InputError(f"{str(place)!r} is no name for a store; name one, such as x.zarr")
        return LocalStore(Path(place), read_only=read_only)
    if isinstance(place, dict):
        return MemoryStore(place, read_only=read_only)
    if isinstance(place, StorePath) and not place.path:
        return place.store
    if hasattr(place, "fs"):  # fsspec's mapping of keys to bytes
        return FsspecStore.from_mapper(place, read_only=read_only)
    raise InputError(f"{place} is no place for a store; give a path, a URL or a store of zarr")
