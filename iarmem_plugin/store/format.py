"""The activation store's format: names, shapes, attributes and sizes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError
from iarmem_plugin.fingerprint import canonical_json, fingerprint
from iarmem_plugin.interfaces.layout import ModelLayout
from iarmem_plugin.store.mantissa import check_keep_bits

FORMAT = "iarmem-activations"
FORMAT_VERSION = 1
DIMS = ("model", "block", "scale", "neuron", "image")
ARRAYS: dict[str, tuple[str, ...]] = {
    "activation": DIMS,
    "captured": ("image",),
    **{dim: (dim,) for dim in DIMS},
    "scale_name": ("scale",),
    "image_path": ("image",),
    "label": ("image",),
    "scale_size": ("scale",),
}
REDUCTION = "mean of absolute value over the tokens of a scale"
COMPRESSED = 0.85  # of the raw bytes, as measured on float32 activations with all 23 bits
_CAPTURE_SETTINGS = (  # of the provenance: whatever changes the numbers
    "tokenizer_sha256",
    "dtype",
    "autocast",
    "preprocessing",
    "augmentation",
    "views",
    "seed",
    "seeds",
    "batch_size",
    "torch_threads",
)

Shape = tuple[int, int, int, int, int]


def chunks_and_shards(neurons: int, scales: int, slab: int) -> tuple[Shape, Shape]:
    """Return the shapes of inner chunks and shards, dims (model, block, scale, neuron, image).

    A shard holds one block of one slab; a chunk up to 512 neurons of up to 128 images at one
    scale, so that looking at one neuron reads little.
    """
    tile = min(512, neurons)
    images = 128 if slab % 128 == 0 else slab
    return (1, 1, 1, tile, images), (1, 1, scales, -(-neurons // tile) * tile, slab)


def stored_share(keep_bits: int | None) -> float:
    """Return which share of the raw bytes is stored: each bit that is rounded off saves its 1/32.

    >>> stored_share(None), round(stored_share(13), 2)
    (0.85, 0.54)
    """
    return COMPRESSED if keep_bits is None else COMPRESSED - (23 - keep_bits) / 32


def raw_bytes(layout: ModelLayout, images: int) -> int:
    """Return the size of a model's activations of so many images, uncompressed."""
    return layout.num_blocks * len(layout.scales) * layout.neurons_per_block * images * 4


def group_attributes(
    model: str,
    layout: ModelLayout,
    images: Images,
    slab: int,
    attrs: Mapping[str, Any],
    keep_bits: int | None = None,
) -> dict[str, Any]:
    """Return the attributes of a model's group.

    Raises:
        InputError: if one of the given attributes is no JSON value, or a number makes no sense.
    """
    if slab < 1 or len(images) == 0:
        raise InputError(f"a slab of {slab} and {len(images)} images; both must be 1 or more")
    check_keep_bits(keep_bits)
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
        "keep_bits": keep_bits,
        "layout": "neuron tiles",
        "layout_ready": False,
        "coordinates": "scale_name scale_size",
        "provenance": {**attrs.get("provenance", {}), "image_list_sha256": images.digest},
    }
    canonical_json(known)  # refuses what is not JSON
    settings = _settings(known, layout, images)
    return {
        **known,
        "capture_settings": settings,
        "capture_fingerprint": fingerprint(settings),
    }


def group_name(model: str) -> str:
    """Return the name of a model's group: lower case letters, digits, dots, dashes, underscores.

    Raises:
        InputError: if nothing would be left of the name.
    """
    name = re.sub(r"[^a-z0-9._-]+", "-", model.lower())
    if not name.strip(".-_"):
        raise InputError(f"a model cannot be called {model!r}; use letters and digits")
    return name


def slab_bounds(slab: int, *, size: int, images: int) -> tuple[int, int]:
    """Return the positions of a slab's first image and of the one after its last.

    Raises:
        InputError: if there is no such slab.
    """
    slabs = -(-images // size)
    if not 0 <= slab < slabs:
        raise InputError(f"slab {slab} was given; there are slabs 0 to {slabs - 1}")
    return slab * size, min((slab + 1) * size, images)


def _settings(attributes: Mapping[str, Any], layout: ModelLayout, images: Images) -> dict[str, Any]:
    provenance = attributes["provenance"]
    names = ("checkpoint_sha256", "adapter", "adapter_version", "hook_point", "reduction")
    return {
        **{name: attributes[name] for name in (*names, "slab", "keep_bits")},
        **{name: provenance[name] for name in _CAPTURE_SETTINGS if name in provenance},
        "image_list_sha256": images.digest,
        "image_ids_sha256": hashlib.sha256(images.ids.astype("<i8").tobytes()).hexdigest(),
        "blocks": layout.num_blocks,
        "neurons": layout.neurons_per_block,
        "scales": [[scale.name, list(scale.tokens)] for scale in layout.scales],
    }
