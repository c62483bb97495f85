"""Membership signals: numbers that tend to be larger for pictures that a model was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float64, Shaped
from torch import Tensor

from iarmem_plugin.data.images import Images
from iarmem_plugin.evaluation.candidates import (
    Candidates,
    Completes,
    check_finite,
    check_tokens,
    images_named,
)
from iarmem_plugin.evaluation.extraction import candidate_coords
from iarmem_plugin.interfaces import Condition
from iarmem_plugin.models.batching import Batching
from iarmem_plugin.models.sampling import check_likelihood

if TYPE_CHECKING:
    from rich.progress import Progress

NLL, MIN_K, CLASS_GAIN = "nll", "min-k", "conditional-unconditional"
FIFTH = 5  # Min-K% is of the lowest fifth of the tokens, K = 20
VALUES, LEFT_OUT = "membership", "left_out"


def membership_signals(
    model: Completes,
    candidates: Candidates,
    tokens: Shaped[Tensor, "candidate token *rest"],
    *,
    without_class: bool | None = None,
    batch_size: int | Batching = 64,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Measure by how much a model takes each candidate for one that it was trained on.

    Tokens are predicted teacher-forced, unguided, at temperature 1. Larger is more member-like:
    ``nll`` is minus the mean negative log-likelihood, nats a token; ``min-k`` the mean
    log-likelihood of the fifth of the tokens that are predicted worst (Min-K% Prob, K = 20);
    ``conditional-unconditional`` the mean over the tokens of
    log p(token | class) - log p(token | no class).

    Args:
        model: the traced model, edited or not.
        candidates: images with their labels and groups.
        tokens: their tokens, as `make_targets` made them from the unmodified model.
        without_class: whether the model predicts without a class, too; None takes what its adapter
            says, and no for a model that shows none.
        batch_size: images at a time; halved where memory does not suffice.
        progress: shows a bar.

    Returns:
        ``membership``, dims (candidate, signal), float64; candidates have the coordinates that
        `extract` gives them. Attribute ``left_out``: which signal is, and why; empty: none.

    Raises:
        InputError: there are no candidates, or not the tokens of each; or continuous tokens.
        NonFiniteLogitsError: naming the first image whose logits are NaN or infinite.
        NonFiniteSimilarityError: naming the first image a token of which has no probability at all.

    Reference:
        Shi et al. 2023, arXiv 2310.16789 (Min-K%); Kowalczuk et al. 2025, arXiv 2502.02514.
    """
    check_tokens(candidates, tokens)
    untold = _predicts_without_class(model) if without_class is None else without_class
    names = [NLL, MIN_K, CLASS_GAIN] if untold else [NLL, MIN_K]

    def measured(rows: slice) -> np.ndarray:
        return _signals(model, candidates.images, tokens, rows, untold=untold)

    with model.borrowed():
        parts = Batching.of(batch_size).over(
            len(candidates), measured, progress=progress, description="reading membership signals"
        )
        values = np.concatenate(list(parts))
    for name, column in zip(names, values.T, strict=True):
        check_finite(column, candidates.images, f"the membership signal {name!r}")
    return xr.Dataset(
        {VALUES: (("candidate", "signal"), values)},
        coords=candidate_coords(candidates) | {"signal": names},
        attrs={LEFT_OUT: "" if untold else _reason(model)},
    )


def lowest_fifth(log_likelihood: Float64[Tensor, "image token"]) -> Float64[Tensor, " image"]:
    """Return the mean over the fifth of each image's tokens that are predicted worst.

    Of n tokens these are n // 5, and at least one.

    >>> lowest_fifth(-torch.arange(10.0, dtype=torch.float64)[None]).item()
    -8.5
    """
    worst = max(1, log_likelihood.shape[1] // FIFTH)
    return log_likelihood.sort(dim=1).values[:, :worst].mean(dim=1)


def _signals(
    model: Completes, images: Images, tokens: Tensor, rows: slice, *, untold: bool
) -> Float64[np.ndarray, "image signal"]:
    given, paths = tokens[rows].to(model.device), images.paths[rows]
    told = Condition.of_images(images, rows)
    likely = _likelihoods(model, given, told, paths)
    found = [likely.mean(1), lowest_fifth(likely)]
    if untold:
        without = _likelihoods(model, given, told.without_class(), paths)
        found.append((likely - without).mean(1))
    return torch.stack(found, 1).cpu().numpy()


def _likelihoods(
    model: Completes, tokens: Tensor, told: Condition, names: Sequence[str]
) -> Float64[Tensor, "image token"]:
    _, found = model.predicted(tokens, told.to(model.device))
    with images_named(names):
        check_likelihood(found)
    return found.double()


def _predicts_without_class(model: Completes) -> bool:
    return bool(getattr(getattr(model, "adapter", None), "without_class", False))


def _reason(model: Completes) -> str:
    return (
        f"{CLASS_GAIN} is left out: this model of family {model.layout.family} predicts nothing "
        "without a class"
    )
