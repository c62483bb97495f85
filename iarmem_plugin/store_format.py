"""The activation store's format: names, shapes and attributes, and what tells it from others."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from iarmem_plugin.errors import (
    CorruptStoreError,
    InputError,
    NonFiniteActivationError,
    NotAStoreError,
    StoreVersionError,
)
from iarmem_plugin.images import Images
from iarmem_plugin.layout import ModelLayout

FORMAT = "iarmem-activations"
FORMAT_VERSION = 1
DIMS = ("model", "block", "scale", "neuron", "image")
ARRAYS = (
    "activation",
    "captured",
    *DIMS,
    "scale_name",
    "image_path",
    "label",
    "scale_size",
)
REDUCTION = "mean of absolute value over the tokens of a scale"
_CAPTURE_SETTINGS = ("autocast", "dtype", "preprocessing", "augmentation", "views", "seed", "seeds")

Shape = tuple[int, int, int, int, int]


def chunks_and_shards(neurons: int, scales: int, slab: int) -> tuple[Shape, Shape]:
    """Return the shapes of inner chunks and shards, dims (model, block, scale, neuron, image).

    A shard holds one block of one slab; a chunk up to 512 neurons of up to 128 images at one
    scale, so that looking at one neuron reads little.
    """
    tile = min(512, neurons)
    images = 128 if slab % 128 == 0 else slab
    return (1, 1, 1, tile, images), (1, 1, scales, -(-neurons // tile) * tile, slab)


def group_attributes(
    model: str, layout: ModelLayout, images: Images, slab: int, attrs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the attributes of a model's group.

    Raises:
        InputError: if one of the given attributes is no JSON value.
    """
    known = {
        "model": model,
        "family": layout.family,
        "checkpoint_sha256": None,
        "adapter": layout.family,
        "adapter_version": None,
        "hook_point": layout.activation,
        **attrs,
        "reduction": REDUCTION,
        "slab": slab,
        "layout": "neuron tiles",
        "layout_ready": False,
        "coordinates": "scale_name scale_size",
        "provenance": {**attrs.get("provenance", {}), "image_list_sha256": images.digest},
    }
    return {**known, "capture_fingerprint": _fingerprint(known, layout)}


def group_name(model: str) -> str:
    """Return the name of a model's group: lower case letters, digits, dots, dashes, underscores.

    Raises:
        InputError: if nothing would be left of the name.
    """
    name = re.sub(r"[^a-z0-9._-]+", "-", model.lower())
    if not name.strip(".-_"):
        raise InputError(f"a model cannot be called {model!r}; use letters and digits")
    return name


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
        bad = ~np.isfinite(activations[0, block])
        if bad.any():
            scale, neuron, image = (int(axis[0]) for axis in bad.nonzero())
            raise NonFiniteActivationError(
                f"the activation of block {block}, scale {scale}, neuron {neuron}, image number "
                f"{first + image} is {activations[0, block, scale, neuron, image]}; expected "
                "finite numbers: check the weights and the dtype"
            )


def read_node(node: Path) -> dict[str, Any] | None:
    """Return the metadata of a zarr group or array, or None if it has none.

    Raises:
        CorruptStoreError: if the metadata are no JSON.
    """
    file = node / "zarr.json"
    if not file.is_file():
        return None
    text = file.read_text(encoding="utf-8", errors="replace")
    try:
        metadata: dict[str, Any] = json.loads(text)
    except json.JSONDecodeError as error:
        raise CorruptStoreError(f"{file} is not JSON (cut at byte {error.pos})") from error
    return metadata


def model_groups(root: Path) -> list[str]:
    """Return the names of the models in a store, whose creation was finished."""
    return sorted(node.name for node in root.iterdir() if node.is_dir() and _is_ready(node))


def require_store(root: Path) -> None:
    """Refuse a path that holds no activation store of this format version or an older one.

    Raises:
        FileNotFoundError: if there is nothing; the message lists similar names.
        NotAStoreError: if it is something else.
        StoreVersionError: if it is newer.
    """
    if not root.exists():
        near = root.parent.iterdir() if root.parent.is_dir() else ()
        similar = get_close_matches(root.name, [path.name for path in near])
        raise FileNotFoundError(
            f"{root} does not exist; near it: {', '.join(similar) or 'nothing'}"
        )
    metadata = read_node(root) if root.is_dir() else None
    if metadata is None:
        raise NotAStoreError(f"{root} is not an activation store (no zarr.json). {_what(root)}")
    attributes = metadata.get("attributes", {})
    if attributes.get("format") != FORMAT:
        raise NotAStoreError(
            f"{root} is a zarr v{metadata.get('zarr_format')} {metadata.get('node_type')} without "
            f"attribute format={FORMAT!r}"
        )
    version = attributes.get("format_version")
    if version != FORMAT_VERSION:
        raise StoreVersionError(
            f"{root} has format_version {version}, this release reads {FORMAT_VERSION}; "
            "upgrade iarmem"
        )


def _what(root: Path) -> str:
    if not root.is_dir():
        return f"It is a file of {root.stat().st_size} bytes."
    models = model_groups(root)
    if models:
        return f"It holds the model groups {', '.join(models)}; its root zarr.json is lost."
    return f"It is a folder with {sum(1 for _ in root.iterdir())} entries."


def _is_ready(node: Path) -> bool:
    try:
        metadata = read_node(node)
    except CorruptStoreError:
        return True  # it is there; asking for it says what is wrong
    return metadata is not None and metadata.get("attributes", {}).get("layout_ready") is True


def _fingerprint(attributes: Mapping[str, Any], layout: ModelLayout) -> str:
    provenance = attributes["provenance"]
    names = ("checkpoint_sha256", "adapter", "adapter_version", "hook_point", "reduction", "slab")
    settings = {
        **{name: attributes[name] for name in names},
        **{name: provenance[name] for name in _CAPTURE_SETTINGS if name in provenance},
        "image_list_sha256": provenance["image_list_sha256"],
        "blocks": layout.num_blocks,
        "neurons": layout.neurons_per_block,
        "scales": [[scale.name, list(scale.tokens)] for scale in layout.scales],
    }
    try:
        json.dumps(dict(attributes), allow_nan=False)
        text = json.dumps(settings, allow_nan=False, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise InputError(f"an attribute of the store is no JSON value: {error}") from error
    return hashlib.sha256(text.encode()).hexdigest()
