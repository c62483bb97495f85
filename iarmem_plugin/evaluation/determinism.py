"""Do batches change tokens? Complete some candidates in batches of two sizes, and count.

Floating-point sums depend on the shape of a batch in their last digits. A token flips where the
two best logits are closer than that; every later token of the image may then differ by right.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from iarmem_plugin.data.augmentation import Augmentation
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.candidates import (
    Candidates,
    Completes,
    images_named,
    refuse_broken,
)
from iarmem_plugin.evaluation.extraction import GREEDY, make_targets
from iarmem_plugin.interfaces import Condition
from iarmem_plugin.models.batching import Batching

NEAR = 1e-3
"""The gap between the two best logits below which a choice is a near tie."""


@dataclass(frozen=True, slots=True)
class BatchingCheck:
    """What changed between two batch sizes.

    Attributes:
        images: candidates that were completed twice.
        batch_sizes: images at a time in each of the two runs.
        read_differently: images of which the tokenizer made other tokens.
        tokens: chosen tokens that were compared, those of each image up to its first flip.
        near_ties: compared tokens that were chosen by a gap of at most `NEAR`.
        flips: images with a flip; only an image's first is one.
        clear_flips: flips by a larger gap than `NEAR`, of which there should be none.
    """

    images: int
    batch_sizes: tuple[int, int]
    read_differently: int
    tokens: int
    near_ties: int
    flips: int
    clear_flips: int

    @property
    def summary(self) -> str:
        """Return the counts in one line."""
        first, second = self.batch_sizes
        return (
            f"batches of {first} and of {second}: {self.flips} flips, {self.clear_flips} of them "
            f"by more than {NEAR:g}, among {self.tokens} tokens with {self.near_ties} near ties; "
            f"{self.read_differently} of {self.images} images read differently"
        )


def check_batching(
    model: Completes,
    candidates: Candidates,
    views: Augmentation,
    *,
    prefix_tokens: int,
    batch_size: int = 64,
    images: int = 32,
) -> BatchingCheck:
    """Complete some candidates in batches of `batch_size` and one by one, and compare the tokens.

    Takes the time of completing `images` candidates twice, and of one teacher-forced pass.

    Args:
        model: the traced model.
        candidates: images to choose from; those compared are spread evenly over them.
        views: the augmentation the model was trained with; its centre view is taken.
        prefix_tokens: number of true tokens given to each completion, greedy and unguided.
        batch_size: images at a time in the first run; the second takes 1, or 2 if this is 1.
        images: largest number of candidates to compare.

    Raises:
        InputError: there is nothing to compare.

    Warns:
        RuntimeWarning: tokens flipped by more than `NEAR`.
    """
    if images < 1:
        raise InputError(f"cannot compare {images} images; give 1 or more")
    some = _spread(candidates, images)
    sizes = (batch_size, 2 if batch_size == 1 else 1)
    read = [make_targets(model, some, views, batch_size=size).tokens for size in sizes]
    if read[0].ndim > 2:
        raise InputError(
            f"tokens of {read[0].shape[2]} parts have no one best logit, and so no near ties: "
            "leave the check of batches out"
        )
    prefix = read[0][:, :prefix_tokens]
    first, second = (_completed(model, some, prefix, size) for size in sizes)
    gaps = _gaps(model, some, first, batch_size)
    counts = compare_choices(first, second, gaps, prefix_tokens)
    differently = int((read[0] != read[1]).any(dim=1).sum())
    check = BatchingCheck(len(some), sizes, differently, *counts)
    if check.clear_flips:
        warnings.warn(f"batches change tokens: {check.summary}", RuntimeWarning, stacklevel=2)
    return check


def compare_choices(
    first: Int[Tensor, "image token"],
    second: Int[Tensor, "image token"],
    gaps: Float[Tensor, "image token"],
    known: int,
) -> tuple[int, int, int, int]:
    """Count, up to each image's first flip: tokens, near ties, flips, flips by a clear gap.

    Args:
        first: tokens that one run chose.
        second: tokens that the other run chose.
        gaps: gaps between the two best logits of the first run.
        known: number of tokens at the start that were given, not chosen.
    """
    flipped = (first != second)[:, known:].int()
    compared = flipped.cumsum(dim=1) - flipped == 0  # no flip before
    flips = (flipped == 1) & compared
    near = gaps[:, known:] <= NEAR
    counted = (compared, compared & near, flips, flips & ~near)
    tokens, near_ties, flip, clear = (int(one.sum()) for one in counted)
    return tokens, near_ties, flip, clear


def top_gaps(logits: Float[Tensor, "image token vocab"]) -> Float[Tensor, "image token"]:
    """Return by how much the best logit exceeds the second best."""
    best = logits.float().topk(2, dim=2).values
    return best[..., 0] - best[..., 1]


def _spread(candidates: Candidates, images: int) -> Candidates:
    count = min(images, len(candidates))
    chosen = np.linspace(0, len(candidates) - 1, count).round().astype(np.int64)
    return Candidates(candidates.images.subset(chosen), candidates.group[chosen])


def _completed(
    model: Completes, candidates: Candidates, prefix: Int[Tensor, "image prefix"], size: int
) -> Int[Tensor, "image token"]:
    def complete(rows: slice) -> Tensor:
        told = Condition.of_images(candidates.images, rows).to(model.device)
        with images_named(candidates.images.paths[rows]):
            return model.complete(prefix[rows].to(model.device), told, GREEDY).cpu()

    with model.borrowed():
        return torch.cat(list(Batching(size).over(len(candidates), complete)))


def _gaps(
    model: Completes, candidates: Candidates, tokens: Int[Tensor, "image token"], size: int
) -> Float[Tensor, "image token"]:
    """Return the gaps by which tokens were chosen, in one teacher-forced pass."""

    def gaps(rows: slice) -> Tensor:
        told = Condition.of_images(candidates.images, rows).to(model.device)
        logits = model.logits(tokens[rows].to(model.device), told)
        refuse_broken(logits, candidates.images.paths[rows])
        return top_gaps(logits[:, : tokens.shape[1]]).cpu()

    with model.borrowed():
        return torch.cat(list(Batching(size).over(len(candidates), gaps)))
