"""Digests of a model's metadata: a bit that flips in a ``zarr.json`` is an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from iarmem_plugin.errors import CorruptStoreError, NotAStoreError
from iarmem_plugin.fingerprint import fingerprint
from iarmem_plugin.store.format import ARRAYS
from iarmem_plugin.store.objects import Objects, attributes_of, read_node

_OF_ARRAYS, _OF_GROUP = "metadata_sha256", "attributes_sha256"


def digests(objects: Objects, group: str) -> dict[str, Any]:
    """Return the attributes that say what the metadata of a group and its arrays are.

    Each is the SHA-256 of canonical JSON. That of the group covers those of the arrays.

    Raises:
        CorruptStoreError: if the group or an array has no metadata, or they are no JSON.
    """
    arrays = {name: fingerprint(_metadata(objects, group, name)) for name in ARRAYS}
    metadata = _metadata(objects, group)
    # what zarr's consolidation adds is never read here; the mark of completion comes last of all
    metadata.pop("consolidated_metadata", None)
    attributes = {**attributes_of(metadata), _OF_ARRAYS: arrays}
    for late in (_OF_GROUP, "layout_ready"):
        attributes.pop(late, None)
    return {_OF_ARRAYS: arrays, _OF_GROUP: fingerprint({**metadata, "attributes": attributes})}


def require_digests(objects: Objects, group: str) -> None:
    """Refuse a group whose metadata are not those with which it was laid out.

    Raises:
        CorruptStoreError: naming the file that changed or is lost.
        NotAStoreError: if there are no digests.
    """
    stored, found = attributes_of(_metadata(objects, group)), digests(objects, group)
    if _OF_ARRAYS not in stored and _OF_GROUP not in stored:
        raise NotAStoreError(
            f"{group} in {objects.name} has neither {_OF_ARRAYS} nor {_OF_GROUP} among its "
            "attributes; this release of iarmem did not write it"
        )
    sound = stored.get(_OF_GROUP) == found[_OF_GROUP]
    if sound and stored.get(_OF_ARRAYS) == found[_OF_ARRAYS] and stored.get("layout_ready") is True:
        return
    arrays = stored.get(_OF_ARRAYS)
    same = arrays if isinstance(arrays, Mapping) else {}
    changed = [name for name, digest in found[_OF_ARRAYS].items() if same.get(name) != digest]
    one = len(changed) == 1 and not sound
    file = f"{group}/{changed[0]}/zarr.json" if one else f"{group}/zarr.json"
    raise CorruptStoreError(
        f"{file} in {objects.name} is not as it was written: it was damaged, changed or added to; "
        "put it back from a copy"
    )


def _metadata(objects: Objects, group: str, array: str = "") -> dict[str, Any]:
    metadata = read_node(objects, f"{group}/{array}" if array else group)
    if metadata is None:
        lost = f"no {array!r}" if array else "lost its zarr.json"
        raise CorruptStoreError(f"{group} in {objects.name} has {lost}")
    return metadata
