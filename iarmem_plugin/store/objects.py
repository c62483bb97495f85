"""The bytes of a store under their keys, wherever they lie, and the metadata of its nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import zarr
from jaxtyping import UInt8
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from iarmem_plugin.errors import (
    CorruptStoreError,
    DiskFullError,
    IarmemError,
    InputError,
    StoreAccessError,
)
from iarmem_plugin.files import DISK_FULL_ERRNOS
from iarmem_plugin.text import shown
from iarmem_plugin.untrusted import LIMIT, parse_json

_DRAIN_SECONDS = 10


@runtime_checkable
class ByteRanges(Protocol):
    """The bytes of an object, of which ranges are taken.

    Attributes:
        size: number of bytes.
    """

    size: int

    def __getitem__(self, part: slice, /) -> UInt8[np.ndarray, " byte"]:
        """Return a range; it is good until the next one is taken."""


@runtime_checkable
class ObjectStore(Protocol):
    """The bytes of a store under their keys, wherever they lie.

    Attributes:
        name: name of the store, for messages.
        local: its folder, where it is one on this machine.
        zarr: the same store, as zarr opens it.
        read_only: whether it was opened to read.
    """

    name: str
    local: Path | None
    zarr: Store
    read_only: bool

    def get(self, key: str) -> bytes | None:
        """Return an object, or None where there is none."""

    def opened(self, keys: list[str]) -> AbstractContextManager[list[ByteRanges | None]]:
        """Return several large objects, asked for at once where each request takes its time."""

    def put(self, key: str, data: UInt8[np.ndarray, " byte"]) -> None:
        """Write an object, whole or not at all."""

    def sizes(self, keys: list[str]) -> list[int]:
        """Return the objects' sizes in bytes; 0 where there is none."""

    def delete(self, keys: list[str]) -> None:
        """Delete objects, whether they are there or not."""

    def children(self, node: str = "") -> list[str]:
        """Return the names in a folder of keys, but not what a killed writer left half written."""

    def is_empty(self) -> bool:
        """Tell whether there is nothing, so that a store may be made there."""


class ZarrObjects:
    """The objects of any store of zarr; see `ObjectStore`."""

    def __init__(self, store: Store, *, name: str, read_only: bool) -> None:
        self.zarr, self.name, self.read_only = store, name, read_only
        self.local: Path | None = None

    def get(self, key: str) -> bytes | None:
        """Ask for a small object."""
        with reached(self.name):
            buffer = sync(self.zarr.get(key, default_buffer_prototype()))
            data = None if buffer is None else buffer.to_bytes()
        if data is not None and len(data) > LIMIT:
            raise CorruptStoreError(f"{self.name}/{key} is larger than {LIMIT / 1e6:.0f} MB")
        return data

    @contextmanager
    def opened(self, keys: list[str]) -> Iterator[list[ByteRanges | None]]:
        """Ask for objects at once."""
        with reached(self.name):
            found = [None if one is None else one.as_numpy_array() for one in sync(self._got(keys))]
        yield found

    def put(self, key: str, data: UInt8[np.ndarray, " byte"]) -> None:
        """Write a copy of an object, since a store in memory keeps what it is given."""
        with reached(self.name):
            set_object(self.zarr, key, data.copy())

    def sizes(self, keys: list[str]) -> list[int]:
        """Ask for sizes at once."""
        with reached(self.name):
            return sync(self._sizes(keys))

    def delete(self, keys: list[str]) -> None:
        """Delete objects."""
        with reached(self.name):
            for key in keys:
                sync(self.zarr.delete(key))

    def children(self, node: str = "") -> list[str]:
        """List the names below a node."""
        with reached(self.name):
            return whole_names(sync(self._listed(node)))

    def is_empty(self) -> bool:
        """Tell whether nothing is listed."""
        return not self.children()

    async def _got(self, keys: list[str]) -> list[Any]:
        prototype = default_buffer_prototype()
        return await asyncio.gather(*(self.zarr.get(key, prototype) for key in keys))

    async def _sizes(self, keys: list[str]) -> list[int]:
        return await asyncio.gather(*map(self._size, keys))

    async def _size(self, key: str) -> int:
        try:
            return await self.zarr.getsize(key)
        except FileNotFoundError:
            return 0

    async def _listed(self, node: str) -> list[str]:
        return [key async for key in self.zarr.list_dir(node)]


@contextmanager
def reached(name: str) -> Iterator[None]:
    """Say which store cannot be reached, in place of what a disk, a network or its library says.

    Raises:
        DiskFullError: there is no room.
        StoreAccessError: anything else; an error of ours stays as it is.
    """
    try:
        yield
    except IarmemError:
        raise
    except Exception as error:  # every library of a network has its own
        if isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS:
            raise DiskFullError(
                error.errno, f"the disk is full: {shown(name)} cannot be written; make room"
            ) from error
        said = error.strerror if isinstance(error, OSError) else None
        reason = shown(said or error) or type(error).__name__
        raise StoreAccessError(
            f"the store at {shown(name)} cannot be read or written: {reason}; see that the place "
            "is right, and that you may use it"
        ) from error


def drain() -> None:
    """Wait for zarr's requests that go on after one beside them has failed."""

    async def wait() -> None:
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=_DRAIN_SECONDS)

    sync(wait())


def read_node(objects: ObjectStore, node: str) -> dict[str, Any] | None:
    """Return the metadata of a zarr group or array, or None if it has none.

    Args:
        objects: bytes of the store.
        node: path inside the store; "" for its root.

    Raises:
        CorruptStoreError: the metadata are not a JSON object.
    """
    key = f"{node}/zarr.json" if node else "zarr.json"
    data = objects.get(key)
    if data is None:
        return None
    try:
        metadata = parse_json(data, f"{objects.name}/{key}")
    except InputError as error:
        raise CorruptStoreError(str(error)) from error
    if not isinstance(metadata, dict):
        raise CorruptStoreError(f"{objects.name}/{key} is not a JSON object")
    return metadata


def attributes_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes among a node's metadata; none if they are spoilt."""
    attributes = metadata.get("attributes", {})
    return dict(attributes) if isinstance(attributes, Mapping) else {}


def refuse_fused_pipeline() -> None:
    """Refuse to read or write while zarr's fused pipeline, which it has had since 3.3, is on.

    Raises:
        InputError: naming the setting.
    """
    if (path := zarr.config.get("codec_pipeline.path")).endswith("FusedCodecPipeline"):
        raise InputError(
            f"zarr's codec_pipeline.path (ZARR_CODEC_PIPELINE__PATH) is {path}, of which zarr's "
            "notes list silent wrong data; expected zarr.core.codec_pipeline.BatchedCodecPipeline"
        )


def set_object(store: Store, key: str, data: np.ndarray) -> None:
    """Write an object through zarr."""
    sync(store.set(key, default_buffer_prototype().buffer.from_array_like(data)))


def whole_names(names: list[str]) -> list[str]:
    """Leave out the names of what a killed writer left half written."""
    return [name for name in names if not name.endswith(".partial")]
