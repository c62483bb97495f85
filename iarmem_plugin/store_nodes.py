"""The bytes of a store under their keys, and the metadata of its groups and arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from iarmem_plugin.errors import CorruptStoreError


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

    def get_large(self, keys: list[str]) -> list[UInt8[np.ndarray, " byte"] | None]:
        """Return several large objects, asked for at once where each request takes its time."""

    def set_large(self, key: str, data: UInt8[np.ndarray, " byte"]) -> None:
        """Write a large object, whole or not at all."""

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
