"""ModelGroup: one model's activations inside a store, slab by slab."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from iarmem_plugin.activations.slabs import Slabs
from iarmem_plugin.errors import CorruptStoreError, DiskFullError, InputError
from iarmem_plugin.files import fsync
from iarmem_plugin.store.format import ARRAYS, stored_share
from iarmem_plugin.store.integrity import Damage, check_slab, reading_or_corrupt
from iarmem_plugin.store.objects import ObjectStore, drain, reached
from iarmem_plugin.store.shards import DAMAGE, ShardCodec, round_mantissa
from iarmem_plugin.store.writer import SlabWriter

CONCURRENT_REQUESTS = 4  # to a store where each takes its time
MISSING = "are marked as captured, but their data are missing"


class ModelGroup:
    """One model's arrays: what is captured, what is damaged, and how a slab is committed.

    Attributes:
        name: name of the group.
        attributes: attributes of the group, as in the documentation of the format.
        activation: the zarr array, dims (model, block, scale, neuron, image).
        slabs: which images are in which slab.
    """

    def __init__(self, arrays: Any, objects: ObjectStore, name: str) -> None:
        """Wrap a group whose metadata were checked.

        Args:
            arrays: zarr group.
            objects: bytes of the whole store.
            name: name of the group.
        """
        self._arrays, self._objects, self.name = arrays, objects, name
        self.attributes: dict[str, Any] = dict(arrays.attrs)
        self.activation = arrays["activation"]
        _, scales, neurons, images = self.shape
        self.slabs = Slabs(images, int(self.attributes["slab"]))
        self._codec = ShardCodec(neurons, scales, self.slabs.size)
        self._flushed: set[Path] = set()  # folders whose entry in their parent is on disk

    def __repr__(self) -> str:
        """Name the group and its sizes."""
        blocks, scales, neurons, images = self.shape
        return (
            f"ModelGroup({self.name!r}): {blocks} blocks, {scales} scales, {neurons} neurons, "
            f"{images} images in {len(self.slabs)} slabs"
        )

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Return the numbers of blocks, scales, neurons and images."""
        _, blocks, scales, neurons, images = self.activation.shape
        return int(blocks), int(scales), int(neurons), int(images)

    def coordinate(self, name: str) -> np.ndarray:
        """Return one of the small arrays, such as ``"image"``.

        Raises:
            CorruptStoreError: it is damaged.
        """
        with reading_or_corrupt(f"{name!r} of {self.name}"):
            return np.asarray(self._arrays[name][:])

    def captured(self) -> Bool[np.ndarray, " image"]:
        """Return which images are captured, as of now.

        Raises:
            CorruptStoreError: naming the first slab whose marker is damaged.
        """
        try:
            return self.coordinate("captured")
        except CorruptStoreError:
            for slab in self.slabs:
                what = f"the marker of slab {slab} of {self.name!r}; invalidate it: it"
                with reading_or_corrupt(what):
                    self._arrays["captured"][self._slice(slab)]
            raise

    def images_of(self, slab: int) -> range:
        """Return the positions of a slab's images in the list of images.

        Raises:
            InputError: there is no such slab.
        """
        return self.slabs.positions(slab)

    def pending(self) -> list[int]:
        """Return the numbers of the slabs that are not captured."""
        captured = self.captured()
        return [slab for slab in self.slabs if not captured[self._slice(slab)].all()]

    def writing(self) -> SlabWriter:
        """Return a context manager that gathers captured batches into slabs and writes them.

        It writes in one background thread; an error there is raised by the next call.

        Raises:
            InputError: the store was opened to read.
        """
        self._require_writable()
        images, slab = self.coordinate("image"), self.slabs.size
        return SlabWriter(self.put, images=images, shape=self.shape[:3], slab=slab)

    def put(self, slab: int, activations: np.ndarray) -> None:
        """Write one slab: its data first, then, once they are on disk, its marker.

        Args:
            slab: number of the slab, from 0.
            activations: float32 values, dims (model=1, block, scale, neuron, image).

        Raises:
            InputError: shape or dtype do not fit, or the store was opened to read.
            NonFiniteActivationError: naming block, scale and image. Nothing is written then.
            DiskFullError: in the middle of the slab, which is then not marked.
            StoreAccessError: the disk or the network fails; it is not marked either.
        """
        self._require_writable()
        blocks, scales, neurons, _ = self.shape
        images, shards = self.images_of(slab), self._shards(slab)
        check_slab(activations, (1, blocks, scales, neurons, len(images)), images.start)
        place, bits = self._slice(slab), self.attributes.get("keep_bits")
        try:
            with reached(self._objects.name):
                marker = self._arrays["captured"]
                if marker[place].any():  # else a half new slab would count as captured
                    marker[place] = False
                for block in range(blocks):  # one shard each
                    values = round_mantissa(activations[:, block : block + 1], bits)
                    self._objects.put(shards[block], self._codec.encode(values[0, 0]))
                self._flush(shards)
                marker[place] = True  # exactly one chunk; last of all
        except DiskFullError as error:
            share = stored_share(bits)
            need = activations.nbytes * share / 1e9
            raise DiskFullError(
                errno.ENOSPC,
                f"the disk is full; slab {slab} of {self.name!r} needs about {need:.1f} GB and is "
                "not marked as captured; make room and resume",
            ) from error

    def read(self, blocks: Sequence[int], slabs: range) -> np.ndarray:
        """Read whole shards, one request each.

        Returns:
            float32, dims (block, scale, neuron, image); NaN where a shard is missing.

        Raises:
            ValueError: a checksum does not fit.
            RuntimeError: a shard is damaged otherwise.
        """
        first, last = self.images_of(slabs[0])[0], self.images_of(slabs[-1])[-1]
        values = np.empty((len(blocks), *self.shape[1:3], last + 1 - first), np.float32)
        parts: list[tuple[str, np.ndarray]] = []
        for block, of_block in zip(blocks, values, strict=True):
            for slab in slabs:
                low, high = (end - first for end in self.slabs.bounds(slab))
                parts.append((self._shard(block, slab), of_block[..., low:high]))
        at_once = 1 if self._objects.local is not None else CONCURRENT_REQUESTS
        for begin in range(0, len(parts), at_once):
            self._decode(parts[begin : begin + at_once])
        return values

    def read_part(self, key: tuple[Any, ...]) -> np.ndarray:
        """Read less than whole shards, by integers, slices and lists for each dim.

        Raises:
            ValueError: a checksum does not fit.
            RuntimeError: a shard is damaged otherwise.
        """
        plain = all(isinstance(part, int | np.integer | slice) for part in key)
        array = self.activation if plain else self.activation.oindex
        try:
            return np.asarray(array[key])
        except DAMAGE:
            drain()  # or asyncio complains of them when the process ends
            raise
        except ExceptionGroup as several:  # zarr 3.3 and later ask for several chunks at once
            drain()
            raise several.exceptions[0] from several
        except OSError as error:
            with reached(self._objects.name):
                raise error

    def invalidate(self, slab: int) -> None:
        """Mark a slab as not captured, and delete its data; resuming captures it again.

        Raises:
            InputError: there is no such slab, or the store was opened to read.
        """
        self._require_writable()
        images = self.images_of(slab)
        shards = self._shards(slab)
        self._objects.sizes(shards)  # refuses links before anything is changed
        with reached(self._objects.name):
            self._arrays["captured"][images.start : images.stop] = False
            self._objects.delete(shards)

    def damages(self, *, deep: bool) -> Iterator[Damage]:
        """Yield every shard of captured slabs that is missing or, if deep, damaged.

        Raises:
            CorruptStoreError: a small array is damaged.
        """
        if deep:
            self.verify_small()
        captured = self.captured()
        for slab in self.slabs:
            yield from self.damages_of(slab, captured, deep=deep)

    def damages_of(
        self, slab: int, captured: Bool[np.ndarray, " image"], *, deep: bool
    ) -> Iterator[Damage]:
        """Yield every shard of one slab, if it is captured, that is missing or damaged."""
        if not captured[self._slice(slab)].any():
            return
        images = self.images_of(slab)
        for block, size in enumerate(self._objects.sizes(self._shards(slab))):
            what = MISSING if size == 0 else self._read_damage(block, slab) if deep else ""
            if what:
                yield Damage(self.name, slab, block, (images[0], images[-1]), what)

    def verify_small(self) -> None:
        """Read the coordinates and the markers.

        Raises:
            CorruptStoreError: one is damaged.
        """
        for name in ARRAYS:
            if name != "activation":
                self.coordinate(name)

    def verify(self, *, deep: bool = False) -> None:
        """Check that every shard of every captured slab is there; see `damages`.

        Raises:
            CorruptStoreError: naming the first block and images that are missing or damaged.
        """
        for first in self.damages(deep=deep):
            raise CorruptStoreError(str(first))

    def stored_bytes(self) -> int:
        """Return the size of all shards that are there, marked or not."""
        keys = [key for slab in self.slabs for key in self._shards(slab)]
        return sum(self._objects.sizes(keys))

    def _require_writable(self) -> None:
        if self._objects.read_only:
            raise InputError(f"{self._objects.name} was opened to read; open it with mode='r+'")

    def _slice(self, slab: int) -> slice:
        return slice(*self.slabs.bounds(slab))

    def _shard(self, block: int, slab: int) -> str:
        chunk = self.activation.metadata.encode_chunk_key((0, block, 0, 0, slab))
        return f"{self.name}/activation/{chunk}"

    def _shards(self, slab: int) -> list[str]:
        return [self._shard(block, slab) for block in range(self.shape[0])]

    def _decode(self, parts: Sequence[tuple[str, np.ndarray]]) -> None:
        """Fill arrays, dims (scale, neuron, image), from the shards under their keys."""
        with self._objects.opened([key for key, _ in parts]) as found:
            for (_, part), data in zip(parts, found, strict=True):
                if data is None or data.size == 0:
                    part[...] = np.nan
                else:
                    self._codec.decode(data, part)

    def _read_damage(self, block: int, slab: int) -> str:
        try:
            values = self.read([block], range(slab, slab + 1))
        except DAMAGE as error:
            return f"are damaged ({error})"
        return MISSING if np.isnan(values.max()) else ""

    def _flush(self, keys: Sequence[str]) -> None:
        if (root := self._objects.local) is None:
            return  # an object store has stored what it has acknowledged
        files = [root / key for key in keys]
        folders = {file.parent for file in files}  # of the renamed files
        above = {up for folder in folders for up in folder.parents if up.is_relative_to(root)}
        for path in [*files, *folders, *sorted(above - self._flushed, reverse=True)]:
            fsync(path)
        self._flushed |= above
