"""Capture: the mean over the augmented views of what each view's trace gives, batch by batch.

Absolute value and mean over a scale's tokens are taken inside the trace: `scale_means` in
``models/reduction.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, UInt8
from torch import Tensor

from iarmem_plugin.checks import check_integer
from iarmem_plugin.data.augmentation import Augmentation
from iarmem_plugin.data.dataloader import load_batches
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Condition
from iarmem_plugin.models.batching import Batching
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.progress import progress_bar

if TYPE_CHECKING:
    from rich.progress import Progress

DIMS = ("block", "scale", "neuron", "image")


def capture(
    model: ImageARModel,
    images: Images,
    *,
    views: int = 10,
    batch_size: int | Batching = 32,
    seed: int = 0,
    augmentation: Augmentation | None = None,
    workers: int = 0,
    slabs: Sequence[Sequence[int] | np.ndarray] | None = None,
    progress: Progress | None = None,
) -> Iterator[xr.DataArray]:
    """Run a model on ground-truth tokens and yield its neurons' activations.

    The order of reduction is: absolute value after GELU, mean over a scale's tokens, mean over
    the augmented views of an image. Nothing but these means leaves the trace, and at most one
    batch of images is held. The model comes back as it was after every batch.

    Args:
        model: wrapped model.
        images: pictures, decoded batch by batch, so a bad one stops the run at its batch.
        views: number of augmented views of each image; 1 takes the centre view.
        batch_size: number of images in one pass; halved where memory does not suffice. Give a
            `Batching` to see to what size.
        seed: seed for drawing the views; each view also depends on the image, not on its batch.
        augmentation: what draws the views; by default what the model was trained with.
        workers: number of processes that decode pictures ahead of the model; 0 decodes in this
            one.
        slabs: positions of the images to capture; a batch does not go over the end of a slab. By
            default all images are one slab.
        progress: place where a progress bar is shown; None shows nothing.

    Yields:
        float32, dims (block, scale, neuron, image), range [0, inf); coordinates ``block``,
        ``scale``, ``scale_name``, ``neuron``, ``image`` (global id), ``label``, ``image_path``.
        In memory the image comes first: `transpose` costs nothing.

    Raises:
        InputError: no images, views that are all identical, or a picture that cannot be read.
        BypassedNeuronsError: the model does not call its neurons as modules.
        BatchMemoryError: not even one image fits in memory.

    Reference: arXiv 2509.00488, section 3.2 and algorithm 1.
    """
    size = batch_size.size if isinstance(batch_size, Batching) else batch_size
    for name, value in {"views": views, "the batch size": size, "workers": workers}.items():
        check_integer(name, value)
    check_integer("the seed", seed, least=0)
    _check(images, views, size)
    augmentation = model.adapter.variant.views if augmentation is None else augmentation
    batches = _batches([range(len(images))] if slabs is None else slabs, size)
    advance = progress_bar(progress, "capture", sum(map(len, batches)))
    batching = Batching.of(batch_size)
    for batch in load_batches(
        images, batches, augmentation, views=views, seed=seed, workers=workers
    ):
        some = images.subset(batch.positions)
        means = _captured(model, batch.pixels, Condition.of_images(some), batching)
        yield _labelled(model, some, means)
        advance(len(means))


def mean_over_views(
    model: ImageARModel,
    pixels: UInt8[Tensor, "image view 3 height width"] | Float[Tensor, "image view 3 height width"],
    condition: Condition,
) -> Float[Tensor, "image block scale neuron"]:
    """Return each image's activations, averaged over its views.

    Args:
        model: wrapped model.
        pixels: RGB values, floats in [0, 1] or integers in 0..255.
        condition: what the model is told of each image.

    Returns:
        float32, on the model's device.
    """
    told = condition.to(model.device)
    with model.borrowed():
        passes = []
        for view in pixels.unbind(1):
            tokens = model.tokenize(_floats(model, view))
            passes.append(model.read_neurons(model.teacher_forced(tokens, told)))
            if len(passes) == 2:  # keep the running sum alone
                passes = [passes[0].add_(passes[1])]
        return passes[0].div_(pixels.shape[1])


def _captured(
    model: ImageARModel, pixels: Tensor, condition: Condition, batching: Batching
) -> Float[np.ndarray, "image block scale neuron"]:
    """Return the activations of decoded images, in as many passes as memory asks for."""

    def part(rows: slice) -> np.ndarray:
        return mean_over_views(model, pixels[rows], condition[rows]).cpu().numpy()

    parts = list(batching.over(len(pixels), part))
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _floats(model: ImageARModel, view: Tensor) -> Float[Tensor, "image 3 height width"]:
    view = view.to(model.device)  # a byte a value is a quarter of what floats would send there
    return view if view.is_floating_point() else view.to(torch.float32).div_(255)


def _labelled(model: ImageARModel, batch: Images, means: np.ndarray) -> xr.DataArray:
    names = [scale.name for scale in model.layout.scales]
    coordinates = {
        "block": np.arange(means.shape[1]),
        "scale": np.arange(means.shape[2]),
        "scale_name": ("scale", np.array(names, object)),
        "neuron": np.arange(means.shape[3], dtype=np.int32),
        "image": batch.ids,
        "label": ("image", batch.labels),
        "image_path": ("image", np.array(batch.paths, object)),
    }
    array = xr.DataArray(means, coordinates, ("image", "block", "scale", "neuron"))
    return array.rename("activation").transpose(*DIMS)


def _batches(slabs: Sequence[Sequence[int] | np.ndarray], size: int) -> list[list[int]]:
    return [
        [int(position) for position in slab[first : first + size]]
        for slab in slabs
        for first in range(0, len(slab), size)
    ]


def _check(images: Images, views: int, batch_size: int) -> None:
    if len(images) == 0:
        raise InputError("there are no images to capture")
    if views < 1 or batch_size < 1:
        raise InputError(f"views and batch size must be 1 or more, got {views} and {batch_size}")
