"""Generate labelled images through the traced model, for measuring their quality."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.candidates import check_pixels, images_named
from iarmem_plugin.interfaces import Condition, Sampling
from iarmem_plugin.models.batching import Batching

if TYPE_CHECKING:
    from rich.progress import Progress

    from iarmem_plugin.data.images import Images
    from iarmem_plugin.evaluation.candidates import Completes


def generate(
    model: Completes,
    condition: Condition,
    sampling: Sampling,
    *,
    batch_size: int | Batching = 64,
    progress: Progress | None = None,
) -> Iterator[Float[Tensor, "_ 3 height width"]]:
    """Yield batches of generated images, one for each of the condition.

    Args:
        model: the traced model, edited or not.
        condition: what the model is told of each image.
        sampling: how tokens are drawn; each image's draws depend on the seed and on its place
            in the condition, not on its batch.
        batch_size: images at a time; halved where memory does not suffice.
        progress: shows a bar where given.

    Yields:
        RGB in [0, 1].

    Raises:
        InputError: without a condition of at least one image.
        NonFiniteSimilarityError: where a logit or a decoded image is NaN or infinite.
    """

    def drawn(rows: slice) -> Tensor:
        told = condition[rows].to(model.device)
        names = [_name(n, label) for n, label in enumerate(told.label.tolist(), rows.start)]
        with model.borrowed(), images_named(names):
            nothing = model.no_tokens(len(told))
            images = model.decode(model.complete(nothing, told, seeded(sampling, rows)))
            check_pixels(images, names)
        return images

    yield from Batching.of(batch_size).over(
        len(condition), drawn, progress=progress, description="generating"
    )


def proportional_labels(
    labels: Int[np.ndarray, " picture"], count: int
) -> Int[np.ndarray, " image"]:
    """Return `count` labels with the class frequencies of a data set, as near as can be.

    What is left after rounding down goes to the classes with the largest remainders.

    Raises:
        InputError: with an empty data set, or a count that is not positive.
    """
    if len(labels) == 0 or count < 1:
        raise InputError(f"cannot share {count} images among {len(labels)} labelled pictures")
    classes, times = np.unique(labels, return_counts=True)
    shares = times * count / len(labels)
    numbers = np.floor(shares).astype(int)
    largest = np.argsort(numbers - shares, kind="stable")[: count - numbers.sum()]
    numbers[largest] += 1
    return np.repeat(classes, numbers).astype(np.int64)


def conditions_like(images: Images, count: int) -> Condition:
    """Return what a model is told to generate `count` images like those of a data set.

    Captions are taken evenly from the whole of it; classes have its frequencies, see
    `proportional_labels`.

    Raises:
        InputError: with an empty data set, or a count that is not positive.
    """
    labels = proportional_labels(images.labels, count)
    if images.captions is None:
        return Condition.of(labels)
    places = np.arange(count) * len(images) // count
    text = [images.captions[place] for place in places]
    return Condition.of(images.labels[places], text=text)


def _name(place: int, label: int) -> str:
    return f"generated image {place}" + (f" of class {label}" if label >= 0 else "")


def seeded(sampling: Sampling, rows: slice) -> Sampling:
    """Give each image draws of its own, which do not depend on its batch.

    Args:
        sampling: how tokens are drawn; its seed and an image's place give the image's own seed,
            and a tuple holds the seeds of all images.
        rows: places of a batch's images.
    """
    if sampling.greedy or sampling.seed is None:
        return sampling
    if isinstance(sampling.seed, tuple):
        return replace(sampling, seed=sampling.seed[rows])
    places = range(rows.start, rows.stop)
    mixed = [np.random.SeedSequence((sampling.seed, place)) for place in places]
    return replace(sampling, seed=tuple(int(one.generate_state(1)[0]) for one in mixed))
