"""Generate labelled images through the traced model: to measure quality, and as candidates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from iarmem_plugin.data.images import Images
from iarmem_plugin.data.readers import JoinedReader
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.candidates import (
    Candidates,
    Generations,
    check_pixels,
    images_named,
    refuse_continuous,
)
from iarmem_plugin.evaluation.counts import GENERATED
from iarmem_plugin.interfaces import Condition, Sampling
from iarmem_plugin.models.batching import Batching

if TYPE_CHECKING:
    from rich.progress import Progress

    from iarmem_plugin.evaluation.candidates import Completes

FIRST_ID = 2**40  # of a generated candidate: beyond the ids of any list of pictures


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

    for _, images in _drawn(model, condition, sampling, batch_size, progress):
        yield images


def with_generations(
    model: Completes,
    candidates: Candidates,
    like: Images,
    count: int,
    *,
    sampling: Sampling,
    batch_size: int | Batching = 64,
    progress: Progress | None = None,
) -> Candidates:
    """Add the model's own free generations to the candidates, as the group "generated".

    Membership signals take what a model generates for what it was trained on. Their targets are the
    tokens as they were drawn: a tokenizer does not give these back when it encodes the picture.

    Args:
        model: the unmodified model.
        candidates: images to extract, none of them generated.
        like: training images: labels have the frequencies of their classes, see `conditions_like`.
        count: number of images to generate.
        sampling: how tokens are drawn, such as ``model.adapter.variant.sampling``; see `generate`.
        batch_size: images at a time; halved where memory does not suffice.
        progress: shows a bar where given.

    Returns:
        the candidates, and after them the generated ones; these have ids from 2**40.

    Raises:
        InputError: there are generated candidates already, or tokens that are no numbers or bits.
        NonFiniteSimilarityError: where a logit or a decoded image is NaN or infinite.
    """
    if GENERATED in candidates.role:
        raise InputError("these candidates have generated ones among them; add them once")
    told = conditions_like(like, count)
    told = replace(told, image=FIRST_ID + torch.arange(count))
    made = list(_drawn(model, told, sampling, batch_size, progress))
    tokens, images = (torch.cat([one.cpu() for one in part]) for part in zip(*made, strict=True))
    refuse_continuous(tokens, "completed and compared one by one")
    first, drawn = candidates.images, _as_pictures(images, told, like)
    hit_rate = candidates.hit_rate
    return replace(
        candidates,
        images=replace(
            first.join(drawn),
            ids=np.concatenate((first.ids, FIRST_ID + drawn.ids)),
            reader=JoinedReader(first.reader, drawn.reader, FIRST_ID),
        ),
        group=np.concatenate((candidates.group, np.full(count, GENERATED))),
        hit_rate=None if hit_rate is None else np.append(hit_rate, np.full(count, np.nan)),
        generations=Generations(tokens, sampling),
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


def _drawn(
    model: Completes,
    condition: Condition,
    sampling: Sampling,
    batch_size: int | Batching,
    progress: Progress | None,
) -> Iterator[tuple[Shaped[Tensor, "_ token *rest"], Float[Tensor, "_ 3 height width"]]]:
    """Yield batches of tokens and of the images that they are decoded to."""

    def drawn(rows: slice) -> tuple[Tensor, Tensor]:
        told = condition[rows].to(model.device)
        names = [_name(n, label) for n, label in enumerate(told.label.tolist(), rows.start)]
        with model.borrowed(), images_named(names):
            nothing = model.no_tokens(len(told))
            tokens = model.complete(nothing, told, seeded(sampling, rows))
            images = model.decode(tokens)
            check_pixels(images, names)
        return tokens, images

    yield from Batching.of(batch_size).over(
        len(condition), drawn, progress=progress, description="generating"
    )


def _as_pictures(
    images: Float[Tensor, "image 3 height width"], told: Condition, like: Images
) -> Images:
    """Return generated images as a list of pictures with what the model was told of them."""
    pixels = (images.float().permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
    return Images.from_arrays(
        pixels,
        told.label.numpy() if like.labelled else None,
        names=[f"{GENERATED} {place}" for place in range(len(pixels))],
        classes=dict(like.classes) if like.labelled else None,
        captions=told.text,
    )


def _name(place: int, label: int) -> str:
    return f"generated image {place}" + (f" of class {label}" if label >= 0 else "")


def seeded(sampling: Sampling, rows: slice) -> Sampling:
    """Give each image draws of its own, which do not depend on its batch.

    Args:
        sampling: how tokens are drawn; its seed and an image's place give the image's own seed,
            and a tuple holds the seeds of all images.
        rows: places of a batch's images.
    """
    if not sampling.draws or sampling.seed is None:
        return sampling
    if isinstance(sampling.seed, tuple):
        return replace(sampling, seed=sampling.seed[rows])
    places = range(rows.start, rows.stop)
    mixed = [np.random.SeedSequence((sampling.seed, place)) for place in places]
    return replace(sampling, seed=tuple(int(one.generate_state(1)[0]) for one in mixed))
