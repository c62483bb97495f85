"""What tells an activation store from something else, and a sound one from a damaged one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from iarmem_plugin.errors import (
    CorruptStoreError,
    IarmemError,
    InputError,
    NonFiniteActivationError,
    NotAStoreError,
    StoreAccessError,
    StoreNotFoundError,
    StoreVersionError,
    UnknownModelError,
)
from iarmem_plugin.fingerprint import fingerprint
from iarmem_plugin.store.format import ARRAYS, DIMS, FORMAT, FORMAT_VERSION, Shape
from iarmem_plugin.store.objects import ObjectStore, attributes_of, read_node
from iarmem_plugin.text import shown

_OF_ARRAYS, _OF_GROUP = "metadata_sha256", "attributes_sha256"  # attributes of a group
_COMPRESSION, _ROOM = 2_000, 2**20  # bytes of values a stored byte, and some for small arrays
_LAZY = ("activation", "captured")  # a missing part of these is no damage by itself


@dataclass(frozen=True, slots=True)
class Damage:
    """One shard that is marked as captured and cannot be read.

    Attributes:
        model: name of the group.
        slab: number of the slab.
        block: number of the block.
        images: positions of its first and its last image.
        what: what is wrong, to be read after "images 0-255".
    """

    model: str
    slab: int
    block: int
    images: tuple[int, int]
    what: str

    def __str__(self) -> str:
        """Name the place, and what to do."""
        first, last = self.images
        return (
            f"{self.model}: block {self.block}, images {first}-{last} {self.what}; invalidate "
            f"slab {self.slab} of {self.model!r} and capture again"
        )


def model_groups(objects: ObjectStore) -> list[str]:
    """Return the names of the models in a store, but not those whose creation was cut short."""
    # obstore's LocalStore fails, instead of finding nothing, where a file is taken for a folder
    names = [name for name in objects.children() if name != "zarr.json"]
    return sorted(name for name in names if _is_model(objects, name))


def require_store(objects: ObjectStore) -> None:
    """Refuse a place that holds no activation store of this format version or an older one.

    Raises:
        StoreNotFoundError: there is nothing; the message lists similar names.
        NotAStoreError: it is something else.
        StoreVersionError: it is newer.
    """
    metadata = read_node(objects, "")
    if metadata is None:
        raise _absent(objects)
    attributes, ours = attributes_of(metadata), f"attribute format={FORMAT!r}"
    kind = f"v{metadata.get('zarr_format')} {metadata.get('node_type')}"
    if attributes.get("format") != FORMAT:
        raise NotAStoreError(f"{objects.name} is a zarr {kind} without {ours}")
    if kind != "v3 group":
        raise NotAStoreError(
            f"{objects.name} is a zarr {kind}; expected a zarr v3 group with {ours}"
        )
    version = attributes.get("format_version")
    if version != FORMAT_VERSION:
        raise StoreVersionError(
            f"{objects.name} has format_version {version}, this release reads {FORMAT_VERSION}; "
            "upgrade iarmem"
        )


def require_model(objects: ObjectStore, model: str | None, name: str) -> None:
    """Refuse a model's group whose arrays' metadata are not as expected.

    Args:
        objects: bytes of the store.
        model: name as the user gave it; None if not at all.
        name: name of its group.

    Raises:
        UnknownModelError: the store does not hold it.
        CorruptStoreError: naming the file that is lost, damaged or changed.
        NotAStoreError: something else wrote it.
    """
    names = model_groups(objects)
    if name not in names:
        given = "no model was named" if model is None else f"there is no {name!r}"
        raise UnknownModelError(f"{given} in {objects.name}; it holds {', '.join(names) or 'none'}")
    require_digests(objects, name)


def require_values(objects: ObjectStore, name: str, arrays: Any) -> None:
    """Refuse a group whose small arrays have no values, or more than their bytes can hold.

    Args:
        objects: bytes of the store.
        name: name of the group.
        arrays: the group, as zarr opens it.

    Raises:
        CorruptStoreError: naming the array.
    """
    small = [array for array in ARRAYS if array not in _LAZY]
    for array, size in zip(small, objects.sizes([f"{name}/{a}/c/0" for a in small]), strict=True):
        promised = arrays[array].size * 8 > _ROOM + _COMPRESSION * size  # else memory is asked for
        if size == 0 or promised:  # zarr would read zeros
            raise CorruptStoreError(
                f"the values of {array!r} of {name} in {objects.name} are "
                f"{'not as many as promised' if size else 'lost'}; put them back from a copy, or "
                "capture into a new store"
            )


def digests(objects: ObjectStore, group: str) -> dict[str, Any]:
    """Return the attributes that say what the metadata of a group and its arrays are.

    Each is the SHA-256 of canonical JSON. That of the group covers those of the arrays.

    Raises:
        CorruptStoreError: the group or an array has no metadata, or they are not JSON.
    """
    arrays = {name: fingerprint(_metadata(objects, group, name)) for name in ARRAYS}
    metadata = _metadata(objects, group)
    # what zarr's consolidation adds is never read here; the mark of completion comes last of all
    metadata.pop("consolidated_metadata", None)
    attributes = {**attributes_of(metadata), _OF_ARRAYS: arrays}
    for late in (_OF_GROUP, "layout_ready"):
        attributes.pop(late, None)
    return {_OF_ARRAYS: arrays, _OF_GROUP: fingerprint({**metadata, "attributes": attributes})}


def require_digests(objects: ObjectStore, group: str) -> None:
    """Refuse a group whose metadata are not those with which it was laid out.

    Raises:
        CorruptStoreError: naming the file that changed or is lost.
        NotAStoreError: there are no digests.
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


def require_only_ours(objects: ObjectStore, group: str) -> None:
    """Refuse a group's place where something else lies, which laying it out would delete.

    Raises:
        InputError: naming it.
    """
    local = None if objects.local is None else objects.local / group
    taken = local is not None and local.exists() and not local.is_dir()
    others = [] if taken else sorted({*objects.children(group)} - {"zarr.json", *ARRAYS})
    if taken or others:
        what = f"{group}/{others[0]}" if others else group
        raise InputError(
            f"{shown(what)} in {objects.name} is no part of a capture, and would be deleted; move "
            "it to another place"
        )


@contextmanager
def reading_or_corrupt(what: str) -> Iterator[None]:
    """Say what cannot be read, in place of what zarr and its codecs say.

    Raises:
        CorruptStoreError: beginning with what it is.
        StoreAccessError: its place cannot be read.
    """
    try:
        yield
    except IarmemError:
        raise
    except OSError as error:
        if isinstance(error, FileNotFoundError):  # as zarr says that metadata are not there
            raise CorruptStoreError(f"{what} cannot be read: {shown(error)}") from error
        reason = shown(error.strerror or error)
        raise StoreAccessError(
            f"{what} cannot be read: {reason}; see that you may use it"
        ) from error
    except Exception as error:  # of zarr and every codec
        raise CorruptStoreError(f"{what} cannot be read: {shown(error)}") from error


def check_slab(activations: np.ndarray, shape: Shape, first: int) -> None:
    """Refuse a slab that would not be written whole, or holds anything but finite numbers.

    Args:
        activations: values of the slab as they were given.
        shape: shape of the slab, dims (model=1, block, scale, neuron, image).
        first: position of the slab's first image, for the message.

    Raises:
        InputError: shape or dtype differ.
        NonFiniteActivationError: naming block, scale and image.
    """
    if activations.shape != shape or activations.dtype != np.float32:
        raise InputError(
            f"a slab of {activations.dtype} {activations.shape} was given; expected float32 "
            f"{shape}, dims ({', '.join(DIMS)})"
        )
    for block in range(shape[1]):
        values = activations[0, block]
        if not (np.isfinite(values.max()) and np.isfinite(values.min())):  # NaN wins in both
            scale, neuron, image = (int(axis[0]) for axis in (~np.isfinite(values)).nonzero())
            raise NonFiniteActivationError(
                f"the activation of block {block}, scale {scale}, neuron {neuron}, image number "
                f"{first + image} is {values[scale, neuron, image]}; expected finite numbers: "
                "check the weights and the dtype"
            )


def _is_model(objects: ObjectStore, name: str) -> bool:
    try:
        metadata = read_node(objects, name)
    except CorruptStoreError:
        return True  # it is there; asking for it says what is wrong
    if metadata is not None and attributes_of(metadata).get("layout_ready") is True:
        return True
    # no layout is finished, or its mark was lost: what is captured must not be laid out anew
    lost = metadata is None and objects.get(f"{name}/activation/zarr.json") is not None
    return lost or bool(objects.children(f"{name}/captured/c"))


def _metadata(objects: ObjectStore, group: str, array: str = "") -> dict[str, Any]:
    metadata = read_node(objects, f"{group}/{array}" if array else group)
    if metadata is None:
        lost = f"no {array!r}" if array else "lost its zarr.json"
        raise CorruptStoreError(f"{group} in {objects.name} has {lost}")
    return metadata


def _absent(objects: ObjectStore) -> StoreNotFoundError | NotAStoreError:
    if objects.local is not None and objects.local.is_file():
        what = f"It is a file of {objects.local.stat().st_size} bytes."
    elif objects.is_empty() and not (objects.local is not None and objects.local.exists()):
        near = ", ".join(_similar_to(objects.local)) or "nothing"
        return StoreNotFoundError(f"{objects.name} does not exist; near it: {near}")
    elif models := model_groups(objects):
        what = f"It holds the model groups {', '.join(models)}; its root zarr.json is lost."
    else:
        what = (
            f"It is a folder with {len(objects.children())} entries. `iarmem localize --store` "
            "makes one."
        )
    return NotAStoreError(f"{objects.name} is not an activation store (no zarr.json). {what}")


def _similar_to(folder: Path | None) -> list[str]:
    if folder is None or not folder.parent.is_dir():
        return []
    return get_close_matches(folder.name, [path.name for path in folder.parent.iterdir()])
