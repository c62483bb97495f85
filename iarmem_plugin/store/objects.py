"""The bytes of a store under their keys, wherever they lie, and the metadata of its nodes."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import zarr
from jaxtyping import UInt8
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore, MemoryStore, StorePath
from zarr.storage import StoreLike as StoreLike  # what a user may name as the place of a store

from iarmem_plugin.errors import CorruptStoreError, InputError
from iarmem_plugin.text import shown

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


class FileRanges:
    """The bytes of an open file, which the caller closes, read as they are asked for.

    One small buffer is used for all ranges.
    """

    def __init__(self, file: FileIO) -> None:
        self._file, self._buffer = file, np.empty(0, np.uint8)
        self.size = os.fstat(file.fileno()).st_size

    def __getitem__(self, part: slice, /) -> UInt8[np.ndarray, " byte"]:
        """Read a range.

        Raises:
            ValueError: the file became shorter.
        """
        begin, end, _ = part.indices(self.size)
        if end - begin > self._buffer.size:
            self._buffer = np.empty(end - begin, np.uint8)
        taken = self._buffer[: max(end - begin, 0)]
        self._file.seek(begin)
        if self._file.readinto(taken.data) != taken.size:
            raise ValueError("the file became shorter while it was read")
        return taken


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


class FolderObjects:
    """The files in a folder; see `ObjectStore`."""

    def __init__(self, store: LocalStore, *, read_only: bool) -> None:
        self.zarr: Store = store
        self.local: Path | None = store.root
        self._folder, self.name, self.read_only = store.root, str(store.root), read_only

    def get(self, key: str) -> bytes | None:
        """Read a file; a folder of that name is none, other than for zarr."""
        file = self._folder / key
        return file.read_bytes() if file.is_file() else None

    @contextmanager
    def opened(self, keys: list[str]) -> Iterator[list[ByteRanges | None]]:
        """Open files, and close them at the end."""
        with ExitStack() as stack:
            paths = [self._folder / key for key in keys]
            yield [
                FileRanges(stack.enter_context(FileIO(path))) if path.is_file() else None
                for path in paths
            ]

    def put(self, key: str, data: UInt8[np.ndarray, " byte"]) -> None:
        """Write a file under another name, and rename it."""
        _put(self.zarr, key, data)

    def sizes(self, keys: list[str]) -> list[int]:
        """Return the files' sizes; a folder, which has one, too, is none."""
        files = [self._folder / key for key in keys]
        return [file.stat().st_size if file.is_file() else 0 for file in files]

    def delete(self, keys: list[str]) -> None:
        """Delete files."""
        _delete(self.zarr, keys)

    def children(self, node: str = "") -> list[str]:
        """Return the names in a folder."""
        folder = self._folder / node
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return _whole(names)

    def is_empty(self) -> bool:
        """Tell whether there is nothing, or an empty folder."""
        return not self._folder.is_file() and not self.children()


class ZarrObjects:
    """The objects of any store of zarr; see `ObjectStore`."""

    def __init__(self, store: Store, *, read_only: bool) -> None:
        self.zarr, self.read_only = store, read_only
        self.local: Path | None = None
        self.name = str(store)

    def get(self, key: str) -> bytes | None:
        """Ask for an object."""
        buffer = sync(self.zarr.get(key, default_buffer_prototype()))
        return None if buffer is None else buffer.to_bytes()

    @contextmanager
    def opened(self, keys: list[str]) -> Iterator[list[ByteRanges | None]]:
        """Ask for objects at once."""
        yield [None if one is None else one.as_numpy_array() for one in sync(self._got(keys))]

    def put(self, key: str, data: UInt8[np.ndarray, " byte"]) -> None:
        """Write a copy of an object, since a store in memory keeps what it is given."""
        _put(self.zarr, key, data.copy())

    def sizes(self, keys: list[str]) -> list[int]:
        """Ask for sizes at once."""
        return sync(self._sizes(keys))

    def delete(self, keys: list[str]) -> None:
        """Delete objects."""
        _delete(self.zarr, keys)

    def children(self, node: str = "") -> list[str]:
        """List the names below a node."""
        return _whole(sync(self._listed(node)))

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


def open_objects(place: StoreLike, *, read_only: bool) -> ObjectStore:
    """Open the bytes of a store; nothing is made yet.

    Args:
        place: path, URL of fsspec such as ``memory://x.zarr``, or any store of zarr.
        read_only: whether nothing will be written.

    Raises:
        InputError: it is none of these, or names no store.
    """
    store = _as_zarr(place, read_only=read_only)
    if isinstance(store, LocalStore):
        return FolderObjects(store, read_only=read_only)
    return ZarrObjects(store, read_only=read_only)


def local_folder(place: StoreLike) -> Path | None:
    """Return the folder of a store, if it is one on this machine."""
    return open_objects(place, read_only=True).local


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
        metadata = json.loads(data.decode(errors="replace"))
    except json.JSONDecodeError as error:
        raise CorruptStoreError(
            f"{objects.name}/{key} is not JSON (cut at byte {error.pos})"
        ) from error
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


def _put(store: Store, key: str, data: np.ndarray) -> None:
    sync(store.set(key, default_buffer_prototype().buffer.from_array_like(data)))


def _delete(store: Store, keys: list[str]) -> None:
    for key in keys:
        sync(store.delete(key))


def _whole(names: list[str]) -> list[str]:
    return [name for name in names if not name.endswith(".partial")]


def _as_zarr(place: StoreLike, *, read_only: bool) -> Store:
    if isinstance(place, Store):
        return place
    if isinstance(place, str) and "://" in place:
        kind, _, path = place.partition("://")
        if kind not in ("file", "local"):
            return _from_url(place, read_only=read_only)
        place = Path(path)
    if isinstance(place, str | Path):
        if not Path(place).name:
            raise InputError(f"{str(place)!r} does not name a store; name one, such as x.zarr")
        return LocalStore(Path(place), read_only=read_only)
    if isinstance(place, dict):
        return MemoryStore(place, read_only=read_only)
    if isinstance(place, StorePath) and not place.path:
        return place.store
    if hasattr(place, "fs"):  # fsspec's mapping of keys to bytes
        return FsspecStore.from_mapper(place, read_only=read_only)
    raise InputError(f"{place} is not a place for a store; give a path, a URL or a store of zarr")


def _from_url(url: str, *, read_only: bool) -> Store:
    try:
        return FsspecStore.from_url(url, read_only=read_only)
    except (ValueError, ImportError, OSError, TypeError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"the store at {shown(url)} cannot be opened: {reason}") from error
