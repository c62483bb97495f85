"""The activation store's format: names, shapes, attributes and sizes; an empty group laid out."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from iarmem_plugin.activations.settings import REDUCTION, CaptureSettings
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import CorruptStoreError, InputError
from iarmem_plugin.fingerprint import canonical_json
from iarmem_plugin.interfaces.layout import ModelLayout

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
DTYPES = {
    "activation": "float32",
    "captured": "bool",
    "block": "int64",
    "scale": "int64",
    "neuron": "int32",
    "image": "int64",
    "label": "int32",
    "scale_size": "int32",
}  # the others are text
MANTISSA_BITS = 23  # of a float32
_COMPRESSED = 0.85  # of the raw bytes, as measured on float32 activations with all 23 bits
_LARGEST_CHUNK = 2**31  # bytes that blosc takes
_SMALL = [  # a flipped bit in a label is an error, too
    {"name": "zstd", "configuration": {"level": 0, "checksum": False}},
    {"name": "crc32c"},
]

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
    return _COMPRESSED - (0 if keep_bits is None else (MANTISSA_BITS - keep_bits) / 32)


def raw_bytes(layout: ModelLayout, images: int) -> int:
    """Return the size of a model's activations of so many images, uncompressed."""
    return layout.num_blocks * len(layout.scales) * layout.neurons_per_block * images * 4


def check_keep_bits(keep_bits: int | None) -> None:
    """Refuse a number of bits that a float32 does not have.

    Raises:
        InputError: unless it is None or in 1..23.
    """
    if keep_bits is not None and not 1 <= keep_bits <= MANTISSA_BITS:
        raise InputError(f"keep_bits is {keep_bits}; a float32 has 1 to {MANTISSA_BITS} to keep")


def group_attributes(settings: CaptureSettings) -> dict[str, Any]:
    """Return the attributes of a model's group.

    Raises:
        InputError: a setting is not a JSON value, or a number of bits makes no sense.
    """
    check_keep_bits(settings.keep_bits)
    layout = settings.layout
    attributes = {
        "model": settings.model,
        "family": layout.family,
        "checkpoint_sha256": settings.checkpoint_sha256,
        "adapter": layout.family,
        "adapter_version": settings.adapter_version,
        "hook_point": str(layout.mlp.site),
        "provenance": {
            **settings.provenance,
            **settings.known,
            "image_list_sha256": settings.images.digest,
        },
        "reduction": REDUCTION,
        "slab": settings.slab,
        "keep_bits": settings.keep_bits,
        "layout": "neuron tiles",
        "layout_ready": False,
        "coordinates": "scale_name scale_size",
        "capture_settings": settings.to_dict(),
        "capture_fingerprint": settings.fingerprint,
    }
    canonical_json(attributes)  # refuses what is not JSON
    return attributes


def group_name(model: str) -> str:
    """Return the name of a model's group: lower case letters, digits, dots, dashes, underscores.

    Raises:
        InputError: nothing would be left of the name.
    """
    name = re.sub(r"[^a-z0-9._-]+", "-", model.lower())
    if not name.strip(".-_"):
        raise InputError(f"a model cannot be called {model!r}; use letters and digits")
    return name


def require_layout(group: Any) -> None:
    """Refuse a zarr group whose arrays or attributes are not as `create_activation` lays them out.

    Digests alone do not tell, since whoever spoils metadata can make these anew.

    Raises:
        CorruptStoreError: naming the first that differs.
    """
    attributes, activation = dict(group.attrs), group["activation"]
    _require(group, "attributes", _sound_attributes(attributes))
    _require(group, "activation", len(activation.shape) == 5 and min(activation.shape) > 0)
    sizes, slab = dict(zip(DIMS, activation.shape, strict=True)), attributes["slab"]
    chunks, shards = chunks_and_shards(sizes["neuron"], sizes["scale"], slab)
    for name, dims in ARRAYS.items():
        array, shape = group[name], tuple(sizes[dim] for dim in dims)
        expected = {"activation": (chunks, shards), "captured": ((slab,), None)}
        sound = array.shape == shape and array.metadata.dimension_names == dims
        sound &= (array.chunks, array.shards) == expected.get(name, (shape, None))
        sound &= array.dtype == np.dtype(DTYPES.get(name, np.dtypes.StringDType()))
        _require(group, name, sound)
    _require(group, "captured", not group["captured"].fill_value)  # what is not marked is not there
    _require(group, "activation", bool(np.isnan(activation.fill_value)) and sizes["model"] == 1)
    _require(group, "activation", 4 * math.prod(chunks) <= _LARGEST_CHUNK)


def _sound_attributes(attributes: Mapping[str, Any]) -> bool:
    slab, bits = attributes.get("slab"), attributes.get("keep_bits")
    whole = isinstance(attributes.get("capture_settings"), dict)
    whole &= isinstance(attributes.get("capture_fingerprint"), str)
    whole &= type(slab) is int and slab > 0
    return whole and (bits is None or (type(bits) is int and 1 <= bits <= MANTISSA_BITS))


def _require(group: Any, what: str, sound: bool) -> None:
    if not sound:
        raise CorruptStoreError(
            f"{what!r} of {group.name.strip('/')} is not as iarmem lays it out: it was damaged or "
            "changed; put it back from a copy, or capture into a new store"
        )


def create_activation(group: Any, layout: ModelLayout, images: int, slab: int) -> None:
    """Lay out the activations of a zarr group; no value is written."""
    scales, neurons = len(layout.scales), layout.neurons_per_block
    chunks, shards = chunks_and_shards(neurons, scales, slab)
    group.create_array(
        "activation",
        shape=(1, layout.num_blocks, scales, neurons, images),
        dtype="float32",
        chunks=chunks,
        shards=shards,
        compressors=[
            {
                "name": "blosc",
                "configuration": {"cname": "lz4", "clevel": 5, "shuffle": "bitshuffle"},
            },
            {"name": "crc32c"},
        ],
        fill_value=float("nan"),  # a missing shard must not read as 0
        dimension_names=DIMS,
        attributes={
            "long_name": "mean absolute activation after GELU",
            "units": "1",
            "cell_methods": "token: mean (absolute value)",
            "coordinates": "image_path label captured",
        },
    )


def create_coordinates(
    group: Any, model: str, layout: ModelLayout, images: Images, slab: int
) -> None:
    """Write the coordinates of a zarr group, and its marker of what is captured: nothing."""
    scales = range(len(layout.scales))
    _coordinate(group, "model", "model", [model], "string")
    _coordinate(group, "block", "block", range(layout.num_blocks), "int64")
    _coordinate(group, "scale", "scale", scales, "int64")
    _coordinate(group, "scale_name", "scale", [s.name for s in layout.scales], "string")
    _coordinate(group, "scale_size", "scale", [len(s.tokens) for s in layout.scales], "int32")
    _coordinate(group, "neuron", "neuron", range(layout.neurons_per_block), "int32")
    _coordinate(group, "image", "image", images.ids, "int64")
    _coordinate(group, "image_path", "image", images.paths, "string")
    _coordinate(group, "label", "image", images.labels, "int32")
    group.create_array(
        "captured",
        shape=(len(images),),
        dtype="bool",
        chunks=(slab,),
        compressors=_SMALL,
        fill_value=False,
        dimension_names=("image",),
        attributes={"long_name": "whether the image's activations are on disk"},
    )


def _coordinate(
    group: Any, name: str, dim: str, values: Sequence[Any] | np.ndarray, dtype: str
) -> None:
    kind = np.dtypes.StringDType() if dtype == "string" else np.dtype(dtype)
    data = np.asarray(values, kind)
    group.create_array(
        name,
        data=data,
        chunks=data.shape,
        compressors=_SMALL,
        dimension_names=(dim,),
        config={"write_empty_chunks": True},  # values that are all zero are there, too
    )
