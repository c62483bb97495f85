"""The bytes of a store under their keys, and the metadata of its groups and arrays."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from io import FileIO
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import zarr
from jaxtyping import UInt8

from iarmem_plugin.errors import CorruptStoreError, InputError


@runtime_checkable
class Pieces(Protocol):
    """The bytes of an object, of which parts are taken.

    Attributes:
        size: in bytes.
    """

    size: int

    def __getitem__(self, part: slice, /) -> UInt8[np.ndarray, " byte"]:
        """Return a part; it is good until the next one is taken."""


class FilePieces:
    """The bytes of a file, read as they are asked for into one small buffer."""

    def __init__(self, file: FileIO) -> None:
        """Take an open file, which the caller closes."""
        self._file, self._buffer = file, np.empty(0, np.uint8)
        self.size = os.fstat(file.fileno()).st_size

    def __getitem__(self, part: slice, /) -> UInt8[np.ndarray, " byte"]:
        """Read a part.

        Raises:
            ValueError: if the file became shorter.
        """
        begin, end, _ = part.indices(self.size)
        if end - begin > self._buffer.size:
            self._buffer = np.empty(end - begin, np.uint8)
        piece = self._buffer[: max(end - begin, 0)]
        self._file.seek(begin)
        if self._file.readinto(piece.data) != piece.size:
            raise ValueError("the file became shorter while it was read")
        return piece


@runtime_checkable
class Objects(Protocol):
    """The bytes of a store under their keys, wherever they lie.

    Attributes:
        name: of the store, for messages.
        local: its folder, where it is one.
    """

    name: str
    local: Path | None

    def get(self, key: str) -> bytes | None:
        """Return an object, or None where there is none."""

    def opened(self, keys: list[str]) -> AbstractContextManager[list[Pieces | None]]:
        """Return several large objects, asked for at once where each request takes its time."""

    def set_large(self, key: str, data: UInt8[np.ndarray, " byte"]) -> None:
        """Write a large object, whole or not at all."""

    def settle(self) -> None:
        """Wait for requests that go on after one beside them has failed."""

    def sizes(self, keys: list[str]) -> list[int]:
        """Return the objects' sizes in bytes; 0 where there is none."""

    def delete(self, keys: list[str]) -> None:
        """Delete objects, whether they are there or not."""

    def children(self, node: str = "") -> list[str]:
        """Return the names in a folder of keys, but not what a killed writer left half written."""


def read_node(objects: Objects, node: str) -> dict[str, Any] | None:
    """Return the metadata of a zarr group or array, or None if it has none.

    Args:
        objects: of the store.
        node: path inside the store; "" for its root.

    Raises:
        CorruptStoreError: if the metadata are no JSON object.
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
        raise CorruptStoreError(f"{objects.name}/{key} is no JSON object")
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
