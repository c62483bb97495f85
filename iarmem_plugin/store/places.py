"""Where stores lie: a folder, out of which no key and no link leads, a URL, or a store of zarr."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Iterable, Iterator, MutableSet
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore, MemoryStore, StorePath
from zarr.storage import StoreLike as StoreLike  # what a user may name as the place of a store

from iarmem_plugin.errors import CorruptStoreError, InputError, StoreNotFoundError
from iarmem_plugin.store.objects import (
    ByteRanges,
    ObjectStore,
    ZarrObjects,
    reached,
    set_object,
    whole_names,
)
from iarmem_plugin.text import shown
from iarmem_plugin.untrusted import read_small


def open_objects(place: StoreLike, *, read_only: bool) -> ObjectStore:
    """Open the bytes of a store; nothing is made yet.

    Args:
        place: path, URL of fsspec such as ``memory://x.zarr``, or any store of zarr.
        read_only: whether nothing will be written.

    Raises:
        InputError: it is none of these, names no store, or cannot be opened or written.
    """
    store = _as_zarr(place, read_only=read_only)
    name = place if isinstance(place, str) else str(store)
    if not read_only and (store.read_only or not store.supports_deletes):
        raise InputError(f"{shown(name)} can only be read; name a store that can be changed")
    if isinstance(store, LocalStore):
        return FolderObjects(FolderStore(store.root, read_only=read_only), read_only=read_only)
    return ZarrObjects(_opened(store, name), name=name, read_only=read_only)


def local_folder(place: StoreLike) -> Path | None:
    """Return the folder of a store, if it is one on this machine."""
    return open_objects(place, read_only=True).local


class FolderStore(LocalStore):
    """Files in a folder; what a link below it leads to is not read, written or deleted.

    The folder itself may be a link: its name is the user's.
    """

    def place(self, key: str) -> Path:
        """Return the path of a key.

        Raises:
            CorruptStoreError: it leads out of the folder, or by a link.
        """
        (path,) = self.places([key])
        return path

    def places(self, keys: Iterable[str]) -> list[Path]:
        """Return the paths of several keys; see `place`."""
        sound: MutableSet[str] = set()
        return [self._place(key, sound) for key in keys]

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Read a file, or a part of it."""
        self.place(key)
        return await super().get(key, prototype, byte_range)

    async def exists(self, key: str) -> bool:
        """Tell whether there is a file."""
        self.place(key)
        return await super().exists(key)

    async def set(self, key: str, value: Buffer) -> None:
        """Write a file, whole or not at all."""
        self.place(key)
        await super().set(key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write a file that is not there, whole or not at all."""
        self.place(key)
        await super().set_if_not_exists(key, value)

    async def delete(self, key: str) -> None:
        """Delete a file."""
        self.place(key)
        await super().delete(key)

    async def delete_dir(self, prefix: str) -> None:
        """Delete a folder; links in it are deleted, not what they lead to."""
        self.place(prefix)
        await super().delete_dir(prefix)

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """List the names in a folder."""
        self.place(prefix)
        return super().list_dir(prefix)

    def _place(self, key: str, sound: MutableSet[str]) -> Path:
        """Return the path of a key; folders that were looked at are added to the sound ones."""
        folder, _, name = key.rpartition("/")
        if folder and folder not in sound:
            self._place(folder, sound)
            sound.add(folder)
        path = self.root / key
        if name == ".." or key.startswith("/"):
            raise CorruptStoreError(f"{shown(key)} does not name a place inside {shown(self.root)}")
        if key and os.path.islink(path):
            raise CorruptStoreError(
                f"{shown(key)} in {shown(self.root)} is a link; a store is read and written as "
                "plain files and folders alone: put what it leads to in its place ('cp -rL')"
            )
        return path


class FolderObjects:
    """The files in a folder; see `ObjectStore`."""

    def __init__(self, store: FolderStore, *, read_only: bool) -> None:
        self.zarr: Store = store
        self.local: Path | None = store.root
        self._store, self.name, self.read_only = store, str(store.root), read_only

    def get(self, key: str) -> bytes | None:
        """Read a small file; a folder of that name is none, other than for zarr."""
        path = self._store.place(key)
        try:
            return read_small(path, "the file") if path.is_file() else None
        except InputError as error:
            raise CorruptStoreError(str(error)) from error

    @contextmanager
    def opened(self, keys: list[str]) -> Iterator[list[ByteRanges | None]]:
        """Open files, and close them at the end."""
        with ExitStack() as stack:
            paths = self._store.places(keys)
            with reached(self.name):
                files = [
                    stack.enter_context(FileIO(path)) if path.is_file() else None for path in paths
                ]
            yield [None if file is None else FileRanges(file) for file in files]

    def put(self, key: str, data: UInt8[np.ndarray, " byte"]) -> None:
        """Write a file under another name, and rename it."""
        set_object(self.zarr, key, data)

    def sizes(self, keys: list[str]) -> list[int]:
        """Return the files' sizes; a folder, which has one, too, is none."""
        files = self._store.places(keys)
        return [file.stat().st_size if file.is_file() else 0 for file in files]

    def delete(self, keys: list[str]) -> None:
        """Delete files."""
        for path in self._store.places(keys):
            with reached(self.name):
                path.unlink(missing_ok=True)

    def children(self, node: str = "") -> list[str]:
        """Return the names in a folder."""
        folder = self._store.place(node)
        with reached(self.name):
            return whole_names(os.listdir(folder)) if folder.is_dir() else []

    def is_empty(self) -> bool:
        """Tell whether there is nothing, or an empty folder."""
        return not self._store.root.is_file() and not self.children()


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
            ValueError: the file became shorter, or the disk fails.
        """
        begin, end, _ = part.indices(self.size)
        if end - begin > self._buffer.size:
            self._buffer = np.empty(end - begin, np.uint8)
        taken = self._buffer[: max(end - begin, 0)]
        try:
            self._file.seek(begin)
            count = self._file.readinto(taken.data)
        except OSError as error:
            raise ValueError(f"the disk says: {error.strerror}") from error
        if count != taken.size:
            raise ValueError("the file became shorter while it was read")
        return taken


def _as_zarr(place: StoreLike, *, read_only: bool) -> Store:
    if isinstance(place, Store):
        return place
    if isinstance(place, str) and "://" in place:
        kind, _, path = place.partition("://")
        if kind not in ("file", "local"):
            return _from_url(place, read_only=read_only)
        place = path
    if isinstance(place, str | os.PathLike):
        return LocalStore(_folder(Path(place)), read_only=read_only)
    if isinstance(place, dict):
        return MemoryStore(place, read_only=read_only)
    if isinstance(place, StorePath) and not place.path:
        return place.store
    if hasattr(place, "fs"):  # fsspec's mapping of keys to bytes
        return FsspecStore.from_mapper(place, read_only=read_only)
    raise InputError(
        f"{shown(place)} is not a place for a store; give a path, a URL or a store of zarr"
    )


def _folder(path: Path) -> Path:
    """Return a path, unless it can be none of a store, whatever lies there."""
    if not path.name:
        raise InputError(f"{str(path)!r} does not name a store; name one, such as x.zarr")
    try:
        if stat.S_ISLNK(path.lstat().st_mode) and not path.exists():
            raise InputError(f"{shown(path)} is a link that leads nowhere; name another place")
    except (FileNotFoundError, NotADirectoryError):
        pass
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"the store at {shown(path)} cannot be opened: {reason}; name another place"
        ) from error
    return path


def _from_url(url: str, *, read_only: bool) -> Store:
    try:
        return FsspecStore.from_url(url, read_only=read_only)
    except Exception as error:  # every file system of fsspec has its own
        raise InputError(f"the store at {shown(url)} cannot be opened: {shown(error)}") from error


def _opened(store: Store, name: str) -> Store:
    """Open a store of zarr that is made open by the first that awaits it, such as a zip file."""
    try:
        sync(store._ensure_open())
    except FileNotFoundError as error:
        raise StoreNotFoundError(f"{shown(name)} does not exist") from error
    except Exception as error:  # every kind of store has its own
        raise InputError(f"the store at {shown(name)} cannot be opened: {shown(error)}") from error
    return store
