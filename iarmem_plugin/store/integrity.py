"""What tells an activation store from something else, and a sound one from a damaged one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np

from iarmem_plugin.errors import (
    CorruptStoreError,
    IarmemError,
    InputError,
    NonFiniteActivationError,
    NotAStoreError,
    StoreNotFoundError,
    StoreVersionError,
    UnknownModelError,
)
from iarmem_plugin.store.digests import require_digests
from iarmem_plugin.store.format import ARRAYS, DIMS, FORMAT, FORMAT_VERSION, Shape
from iarmem_plugin.store.objects import Objects, attributes_of, read_node

_LAZY = ("activation", "captured")  # a missing part of these is no damage by itself


@dataclass(frozen=True, slots=True)
class Damage:
    """One shard that is marked as captured and cannot be read.

    Attributes:
        model: name of the group.
        slab: number of the slab.
        block: number of the block.
        images: positions of its first and its last image.
        what: is wrong, after "images 0-255".
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


def model_groups(objects: Objects) -> list[str]:
    """Return the names of the models in a store, but not those whose creation was cut short."""
    # obstore's LocalStore fails, instead of finding nothing, where a file is taken for a folder
    names = [name for name in objects.children() if name != "zarr.json"]
    return sorted(name for name in names if _is_model(objects, name))


def require_store(objects: Objects) -> None:
    """Refuse a place that holds no activation store of this format version or an older one.

    Raises:
        StoreNotFoundError: if there is nothing; the message lists similar names.
        NotAStoreError: if it is something else.
        StoreVersionError: if it is newer.
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


def require_model(objects: Objects, model: str | None, name: str) -> None:
    """Refuse a model's group whose arrays' metadata are not as expected.

    Args:
        objects: of the store.
        model: as the user named it; None if not at all.
        name: of its group.

    Raises:
        UnknownModelError: if the store does not hold it.
        CorruptStoreError: naming the file that is lost, damaged or changed.
        NotAStoreError: if something else wrote it.
    """
    names = model_groups(objects)
    if name not in names:
        given = "no model was named" if model is None else f"there is no {name!r}"
        raise UnknownModelError(f"{given} in {objects.name}; it holds {', '.join(names) or 'none'}")
    require_digests(objects, name)
    small = [array for array in ARRAYS if array not in _LAZY]
    for array, size in zip(small, objects.sizes([f"{name}/{a}/c/0" for a in small]), strict=True):
        if size == 0:  # zarr would read zeros
            raise CorruptStoreError(
                f"the values of {array!r} of {name} in {objects.name} are lost; put them back from "
                "a copy, or capture into a new store"
            )


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Say what cannot be read, in place of what zarr and its codecs say.

    Raises:
        CorruptStoreError: beginning with what it is.
    """
    try:
        yield
    except IarmemError:
        raise
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise CorruptStoreError(f"{what} cannot be read: {error}") from error


def check_slab(activations: np.ndarray, shape: Shape, first: int) -> None:
    """Refuse a slab that would not be written whole, or holds anything but finite numbers.

    Args:
        activations: what was given.
        shape: of the slab, dims (model=1, block, scale, neuron, image).
        first: position of the slab's first image, for the message.

    Raises:
        InputError: if shape or dtype differ.
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


def _is_model(objects: Objects, name: str) -> bool:
    try:
        metadata = read_node(objects, name)
    except CorruptStoreError:
        return True  # it is there; asking for it says what is wrong
    if metadata is not None and attributes_of(metadata).get("layout_ready") is True:
        return True
    # no layout is finished, or its mark was lost: what is captured must not be laid out anew
    lost = metadata is None and objects.get(f"{name}/activation/zarr.json") is not None
    return lost or bool(objects.children(f"{name}/captured/c"))


def _absent(objects: Objects) -> StoreNotFoundError | NotAStoreError:
    local = objects.local
    if local is not None and local.is_file():
        size = local.stat().st_size
        return NotAStoreError(
            f"{objects.name} is not an activation store (no zarr.json). It is a file of {size} "
            "bytes."
        )
    names = objects.children()
    if (local is None and not names) or (local is not None and not local.exists()):
        near = local.parent.iterdir() if local is not None and local.parent.is_dir() else ()
        similar = [path.name for path in near] if local is not None else []
        closest = get_close_matches(local.name, similar) if local is not None else []
        return StoreNotFoundError(
            f"{objects.name} does not exist; near it: {', '.join(closest) or 'nothing'}"
        )
    models = model_groups(objects)
    what = (
        f"It holds the model groups {', '.join(models)}; its root zarr.json is lost."
        if models
        else f"It is a folder with {len(names)} entries. `iarmem localize --store` makes one."
    )
    return NotAStoreError(f"{objects.name} is not an activation store (no zarr.json). {what}")
