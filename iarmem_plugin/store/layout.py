"""The arrays of a model's group, as they are laid out before the first slab."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from iarmem_plugin.data.images import Images
from iarmem_plugin.interfaces.layout import ModelLayout
from iarmem_plugin.store.format import DIMS, chunks_and_shards

_SMALL = [  # a flipped bit in a label is an error, too
    {"name": "zstd", "configuration": {"level": 0, "checksum": False}},
    {"name": "crc32c"},
]


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
