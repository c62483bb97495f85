"""ActivationStore: zarr on disk, xarray in hand, batches in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
import zarr
from jaxtyping import Bool
from zarr.storage import MemoryStore

from iarmem_plugin.activations.metrics import scores_of, update
from iarmem_plugin.activations.settings import CaptureSettings
from iarmem_plugin.errors import (
    CorruptStoreError,
    IarmemError,
    IncompleteCaptureError,
    InputError,
)
from iarmem_plugin.files import fsync, write_whole
from iarmem_plugin.interfaces import Metric
from iarmem_plugin.plugins.create import create
from iarmem_plugin.store.format import (
    ARRAYS,
    FORMAT,
    FORMAT_VERSION,
    create_activation,
    create_coordinates,
    group_attributes,
    group_name,
    require_layout,
)
from iarmem_plugin.store.group import ModelGroup
from iarmem_plugin.store.integrity import (
    digests,
    model_groups,
    reading_or_corrupt,
    require_model,
    require_only_ours,
    require_store,
    require_values,
)
from iarmem_plugin.store.objects import ObjectStore, reached, refuse_fused_pipeline
from iarmem_plugin.store.places import StoreLike, open_objects
from iarmem_plugin.store.reading import (
    CheckedArray,
    read_slabs,
    stacked,
    with_checked,
    with_small_loaded,
)
from iarmem_plugin.store.writer import SlabWriter
from iarmem_plugin.text import shown

Partial = Literal["error", "drop", "keep"]


class ActivationStore:
    """Activations of one or more models in one place, one zarr group a model.

    ``xr.open_datatree(path, engine="zarr", consolidated=False)`` reads it without this package.
    A slab of consecutive images is the unit of writing: its images count as captured only once
    all of them are on disk.
    """

    def __init__(self, place: StoreLike, mode: Literal["r", "r+"] = "r") -> None:
        """Open a store; see `open`."""
        if mode not in ("r", "r+"):  # "w" would delete what is there
            raise InputError(f"mode {mode!r} was given; expected 'r' to read or 'r+' to write")
        self.mode = mode
        require_store(open_objects(place, read_only=True))
        self._objects = open_objects(place, read_only=mode == "r")
        self.name = self._objects.name
        self._groups: dict[str, ModelGroup] = {}

    @classmethod
    def open(cls, place: StoreLike, mode: Literal["r", "r+"] = "r") -> ActivationStore:
        """Open a store to read (``"r"``) or to write (``"r+"``).

        Args:
            place: path, URL of fsspec such as ``memory://x.zarr``, or any store of zarr.
            mode: what it is opened for.

        Raises:
            StoreNotFoundError: there is nothing at the path.
            NotAStoreError: it holds something else.
            StoreVersionError: a newer release wrote it.
        """
        return cls(place, mode)

    @classmethod
    def create(cls, place: StoreLike, settings: CaptureSettings) -> ActivationStore:
        """Lay out an empty store for one model, or add a model to an existing store.

        Args:
            place: path, by custom ``<name>.zarr``, or another place; see `open`.
            settings: settings of the capture: the model, its layout, the images to be captured in
                order, images in a slab, and what else is known.

        Raises:
            InputError: the store holds the model already, or a setting is not a JSON value.
            NotAStoreError: the path holds something else.
        """
        refuse_fused_pipeline()
        attributes, name = group_attributes(settings), group_name(settings.model)
        objects = open_objects(place, read_only=False)
        if holds(place, name):
            raise InputError(
                f"{objects.name} holds activations of {name!r} already; name a new store"
            )
        require_only_ours(objects, name)
        with reached(objects.name):
            if objects.is_empty():
                _create_root(objects)
            group = zarr.open_group(objects.zarr, path=name, mode="w", attributes=attributes)
            create_activation(group, settings.layout, len(settings.images), settings.slab)
            create_coordinates(group, name, settings.layout, settings.images, settings.slab)
            _flush(objects.local, name)
            group.attrs.update({**digests(objects, name), "layout_ready": True})
            _flush(objects.local, name)
        return cls(place, "r+")

    def __repr__(self) -> str:
        """Name the place, and the models in it."""
        try:
            models = ", ".join(self.models) or "no models"
        except IarmemError as error:
            models = shown(error)
        return f"ActivationStore({self.name!r}, mode={self.mode!r}): {models}"

    def __getitem__(self, model: str | None) -> ModelGroup:
        """Return one model's arrays, whose metadata are checked when it is first asked for.

        Args:
            model: name of the model; None where the store holds one.

        Raises:
            UnknownModelError: the store does not hold the model.
            CorruptStoreError: naming the array that is missing or unreadable.
        """
        refuse_fused_pipeline()  # it may have been switched on since
        name = self._named(model)
        if name not in self._groups:
            self._groups[name] = self._opened(model)
        return self._groups[name]

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
            model: name of the model; may be left out where the store holds one.
            partial: what to do if images are not captured: refuse, leave them out, or show NaN.

        Raises:
            UnknownModelError: the store does not hold the model.
            IncompleteCaptureError: images are missing and partial is ``"error"``.
            CorruptStoreError: part of the model is missing or unreadable; if that is found
                only when values are read, then from there.
        """
        _require_one_of(get_args(Partial), partial)
        group = self._opened(model)
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
        with reading_or_corrupt(f"{group.name} in {self.name}"):
            data = xr.open_zarr(
                self._objects.zarr, group=group.name, consolidated=False, chunks=None
            )
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
            model: name of the model; may be left out where the store holds one.
            block: number of the only block to read; a slab is then one request, and takes
                1/blocks of the memory.
            partial: ``"error"`` or ``"drop"``; see `dataset`.

        Yields:
            float32, dims (block, scale, neuron, image); coordinates ``image`` and ``label``.

        Raises:
            IncompleteCaptureError: not all images are captured.
            CorruptStoreError: data are missing or damaged; the message names block and images.
        """
        _require_one_of(("error", "drop"), partial)
        data = self.dataset(model, partial)
        if block is not None and block not in range(data.sizes["block"]):
            raise InputError(f"there is no block {block}; there are 0 to {data.sizes['block'] - 1}")
        yield from read_slabs(data, block)

    def score(
        self, metric: str | Callable[[], Metric] = "unitmem", model: str | None = None
    ) -> xr.DataArray:
        """Score the neurons of a captured model in bounded memory, however many images.

        A metric that is `Metric.blockwise` reads block by block, then slab by slab, all scales
        together: each request is one whole shard. Others read a slab of all blocks at a time.

        Args:
            metric: name of a metric, be it with options, or what makes a fresh instance, such as
                its class.
            model: name of the model; may be left out where the store holds one.

        Returns:
            as `Metric.compute`.

        Raises:
            IncompleteCaptureError: not all images are captured.
            CorruptStoreError: data are missing or damaged.
        """
        make = partial(create, "metric", metric) if isinstance(metric, str) else metric
        data = self.dataset(model)
        if not make().blockwise:
            return _score(make(), read_slabs(data))
        blocks = [_score(make(), read_slabs(data, block)) for block in range(data.sizes["block"])]
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
            models: names of the models; all by default.
            select: what to take of each, as for xarray's ``sel``, such as
                ``{"block": 3, "neuron": [5, 9]}``.
            partial: see `dataset`.

        Returns:
            dims (model, ...); coordinates that differ between models have the dim ``model``, too.

        Raises:
            InputError: the selection is not small, or a model does not have it.
        """
        names = self.models if models is None else tuple(models)
        if not names:
            raise InputError("no model was given; name one or more")
        return stacked([self.dataset(name, partial)["activation"] for name in names], select or {})

    def captured(self, model: str | None = None) -> Bool[np.ndarray, " image"]:
        """Return which images are captured."""
        return self[model].captured()

    def pending(self, model: str | None = None) -> list[int]:
        """Return the numbers of the slabs that are not captured."""
        return self[model].pending()

    def images_of(self, model: str | None, slab: int) -> range:
        """Return the positions of a slab's images; see `ModelGroup.images_of`."""
        return self[model].images_of(slab)

    def writing(self, model: str) -> SlabWriter:
        """Return what gathers captured batches into slabs; see `ModelGroup.writing`."""
        return self[model].writing()

    def put(self, model: str, slab: int, activations: np.ndarray) -> None:
        """Write one slab; see `ModelGroup.put`."""
        self[model].put(slab, activations)

    def invalidate(self, model: str, slab: int) -> None:
        """Mark a slab as not captured, and delete its data; see `ModelGroup.invalidate`."""
        self[model].invalidate(slab)

    def verify(self, model: str | None = None, *, deep: bool = False) -> None:
        """Check the metadata, and that every shard of every captured slab is there.

        Args:
            model: name of the model; may be left out where the store holds one.
            deep: whether to read everything, so that the checksums speak.

        Raises:
            CorruptStoreError: naming the first block and images that are missing or damaged.
        """
        self._opened(model).verify(deep=deep)

    def _named(self, model: str | None) -> str:
        """Return the name of a model's group; "" if none was named, and there is not just one."""
        if model is not None:
            return group_name(model)
        names = self.models
        return names[0] if len(names) == 1 else ""

    def _opened(self, model: str | None) -> ModelGroup:
        """Return one model's arrays, whose metadata are checked now."""
        refuse_fused_pipeline()
        name = self._named(model)
        require_model(self._objects, model, name)
        try:
            arrays = zarr.open_group(
                self._objects.zarr, path=name, mode=self.mode, use_consolidated=False
            )
            require_layout(arrays)
            require_values(self._objects, name, arrays)
            return ModelGroup(arrays, self._objects, name)
        except IarmemError:
            raise
        except Exception as error:  # of an unknown dtype or codec, or a spoilt one
            raise CorruptStoreError(
                f"{name} in {self.name} cannot be opened: {shown(error)}"
            ) from error


def _require_one_of(choices: Sequence[str], given: str) -> None:
    if given not in choices:
        raise InputError(f"partial={given!r} was given; expected {' or '.join(map(repr, choices))}")


def _score(metric: Metric, batches: Iterable[xr.DataArray]) -> xr.DataArray:
    for batch in batches:
        update(metric, batch)
    return scores_of(metric)


def holds(place: StoreLike, name: str) -> bool:
    """Tell whether there is a store with a model's group, laid out or damaged.

    Raises:
        NotAStoreError: there is something else.
    """
    objects = open_objects(place, read_only=True)
    if objects.is_empty():
        return False
    require_store(objects)
    return name in model_groups(objects)


def _create_root(objects: ObjectStore) -> None:
    version: dict[str, Any] = {"format": FORMAT, "format_version": FORMAT_VERSION}
    if objects.local is None:  # mode "a": another model may be begun now
        zarr.open_group(objects.zarr, mode="a", attributes=version)
        return
    made: dict[str, Any] = {}
    zarr.open_group(MemoryStore(made), mode="w", attributes=version)
    write_whole(objects.local / "zarr.json", made["zarr.json"].to_bytes())


def _flush(store: Path | None, group: str) -> None:
    """Wait until the metadata and coordinates of a group in a folder are on disk."""
    if store is not None:
        inside = sorted((store / group).rglob("*"), reverse=True)
        for path in [*inside, store / group, store / "zarr.json", store, store.absolute().parent]:
            fsync(path)
