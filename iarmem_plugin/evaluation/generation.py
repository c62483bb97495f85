"""Generate labelled images through the traced model, for measuring their quality."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Sampling

if TYPE_CHECKING:
    from rich.progress import Progress

    from iarmem_plugin.evaluation.candidates import Completes


def generate(
    model: Completes,
    labels: Int[np.ndarray, " image"],
    sampling: Sampling,
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Iterator[Float[Tensor, "_ 3 height width"]]:
    """Yield batches of generated images, one image for each label.

    Args:
        model: the traced model, edited or not.
        labels: class of each image.
        sampling: how tokens are drawn; the draws depend on its seed and on the batch size.
        batch_size: images at a time.
        progress: shows a bar where given.

    Yields:
        RGB in [0, 1].
    """
    starts = range(0, len(labels), batch_size)
    bar = starts if progress is None else progress.track(starts, description="generating")
    for start in bar:
        batch = torch.from_numpy(labels[start : start + batch_size].astype(np.int64))
        with model.borrowed():
            nothing = torch.empty(len(batch), 0, dtype=torch.int64, device=model.device)
            tokens = model.complete(nothing, batch.to(model.device), seeded(sampling, start))
            images = model.decode(tokens)
        yield images


def proportional_labels(
    labels: Int[np.ndarray, " picture"], count: int
) -> Int[np.ndarray, " image"]:
    """Return `count` labels with the class frequencies of a data set, as near as can be.

    What is left after rounding down goes to the classes with the largest remainders.

    Raises:
        InputError: the data set is empty, or the count is not positive.
    """
    if len(labels) == 0 or count < 1:
        raise InputError(f"cannot share {count} images among {len(labels)} labelled pictures")
    classes, times = np.unique(labels, return_counts=True)
    shares = times * count / len(labels)
    numbers = np.floor(shares).astype(int)
    largest = np.argsort(numbers - shares, kind="stable")[: count - numbers.sum()]
    numbers[largest] += 1
    return np.repeat(classes, numbers).astype(np.int64)


def seeded(sampling: Sampling, start: int) -> Sampling:
    """Give each batch draws of its own: the same seed in all would repeat them."""
    if sampling.greedy or sampling.seed is None:
        return sampling
    seed = np.random.SeedSequence((sampling.seed, start)).generate_state(1)[0]
    return replace(sampling, seed=int(seed))
