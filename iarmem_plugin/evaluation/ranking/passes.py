"""One teacher-forced pass an image: how well its tokens are predicted."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float, Float64, Shaped
from rich.progress import Progress
from torch import Tensor

from iarmem_plugin.data.augmentation import Augmentation
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.candidates import (
    Candidates,
    Completes,
    centre_views,
    images_named,
    refuse_continuous,
)
from iarmem_plugin.evaluation.ranking.ranking import Ranking
from iarmem_plugin.interfaces import Condition
from iarmem_plugin.interfaces.layout import ModelLayout
from iarmem_plugin.models.batching import Batching
from iarmem_plugin.models.sampling import check_likelihood


def rank_candidates(
    model: Completes,
    images: Images,
    views: Augmentation,
    *,
    per_class: int = 5,
    positions: Iterable[int] | None = None,
    group: str = "ranked",
    batch_size: int | Batching = 64,
    progress: Progress | None = None,
) -> Candidates:
    """Keep the images of each class whose tokens the model predicts best.

    That is `rank` and `Ranking.candidates` at once, for as many images as one sitting allows:
    nothing is kept on disk, and copies of a picture are not told. The score is that of `rank`.

    Args:
        model: the traced model.
        images: the training images.
        views: the augmentation the model was trained with; its centre view is taken.
        per_class: images to keep of each class; a smaller class is kept whole. Where there are no
            classes, images to keep of all.
        positions: token positions that count, from 0; None takes the last tokens that the
            model's layout names: those of VAR's last scale, and RAR's last 99 of 256.
        group: name for the group of all candidates.
        batch_size: images at a time; halved where memory does not suffice.
        progress: shows a bar where given.

    Returns:
        the best first within each class, classes in ascending order; ``hit_rate`` in [0, 1].

    Raises:
        InputError: with impossible positions or numbers.
        NonFiniteLogitsError: where the model's logits are not finite.

    Reference:
        Kowalczuk et al. 2025, arXiv 2502.02514 (stage 1: identification of candidates).
    """
    if per_class < 1:
        raise InputError(f"per_class is {per_class}; keep at least one image of each class")
    given = None if positions is None else tuple(positions)
    batching = Batching.of(batch_size)

    def scored(rows: slice) -> Float64[np.ndarray, "image 2"]:
        tokens = tokenized(model, centre_views(images, views, rows))
        return scores(model, tokens, images, rows, given)

    with model.borrowed():
        done = batching.over(
            len(images), scored, progress=progress, description="ranking candidates"
        )
        hit_rate, log_probability = np.concatenate(list(done)).T
    found = Ranking.of(images, hit_rate, log_probability)
    return found.candidates(images, per_class=per_class, group=group)


def tokenized(
    model: Completes, pixels: Float[Tensor, "image 3 height width"]
) -> Shaped[Tensor, "image token *rest"]:
    """Return the tokens of some views.

    Args:
        model: its tokenizer is used.
        pixels: RGB in [0, 1].

    Raises:
        InputError: they are continuous, so that none is ever predicted.
    """
    tokens = model.tokenize(pixels.to(model.device))
    refuse_continuous(tokens, "ranked by how well they are predicted")
    return tokens


def scores(
    model: Completes,
    tokens: Shaped[Tensor, "image token *rest"],
    images: Images,
    rows: slice,
    positions: tuple[int, ...] | None,
) -> Float64[np.ndarray, "image 2"]:
    """Return hit rate and mean log-likelihood of the true tokens.

    Args:
        model: the traced model.
        tokens: tokens of some images.
        images: list of which they are.
        rows: their positions in it.
        positions: token positions that count; None takes those of `counted`.

    Raises:
        InputError: a position is not one of a token.
        NonFiniteLogitsError: naming the first image whose logits are not finite.
    """
    chosen = counted(model.layout, tokens.shape[1]) if positions is None else positions
    check_positions(chosen, tokens.shape[1])
    hit, log_likelihood = model.predicted(tokens, Condition.of_images(images, rows))
    with images_named(images.paths[rows]):
        check_likelihood(log_likelihood)
    means = (one[:, chosen].double().mean(dim=1) for one in (hit, log_likelihood))
    return torch.stack(list(means), dim=1).cpu().numpy()


def counted(layout: ModelLayout, tokens: int) -> tuple[int, ...]:
    """Return the token positions that count by default, from 0.

    Args:
        layout: says how many of the last tokens; else those of the last scale.
        tokens: number of tokens of an image.
    """
    if layout.ranked_tokens is None:
        return layout.scales[-1].tokens
    return tuple(range(tokens - layout.ranked_tokens, tokens))


def check_positions(positions: tuple[int, ...], tokens: int) -> None:
    """Refuse positions that no token of an image has, and none at all.

    Raises:
        InputError: saying which there are.
    """
    if not positions or not all(0 <= position < tokens for position in positions):
        raise InputError(
            f"positions {positions[:5]}... do not fit images of {tokens} tokens; "
            f"give some from 0 to {tokens - 1}"
        )
