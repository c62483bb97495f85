"""How one token a place is chosen from logits; the same in every family."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from iarmem_adapters.draws import Draws
from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Sampling


def choose(
    logits: Float[Tensor, "image place vocab"],
    sampling: Sampling,
    generator: torch.Generator | Draws | None,
) -> Int[Tensor, "image place"]:
    """Return one token a place, the likeliest or, if not greedy, drawn at random.

    Temperature comes first, then top-k, then top-p on what is left.
    Random tokens of all images and places take one draw of the generator, or each image's own.

    Args:
        logits: unnormalised log-probabilities.
        sampling: the settings.
        generator: where random numbers come from; None for the global generator.
    """
    if sampling.greedy:
        return logits.argmax(2)
    rows = logits.flatten(0, 1)
    if sampling.temperature != 1:
        rows = rows / sampling.temperature
    if sampling.top_k > 0:
        rows = _keep_top_k(rows, sampling.top_k)
    if sampling.top_p > 0:
        rows = _keep_top_p(rows, sampling.top_p)
    if isinstance(generator, Draws):
        return generator.choose(rows.softmax(1).view_as(logits))
    drawn = torch.multinomial(rows.softmax(1), 1, replacement=True, generator=generator)
    return drawn.view(logits.shape[:2])


def _keep_top_k(rows: Float[Tensor, "row vocab"], top_k: int) -> Float[Tensor, "row vocab"]:
    """Set every logit below the k-th largest of its row to -inf."""
    least = rows.topk(min(top_k, rows.shape[1]), dim=1).values[:, -1:]
    return rows.masked_fill(rows < least, -math.inf)


def _keep_top_p(rows: Float[Tensor, "row vocab"], top_p: float) -> Float[Tensor, "row vocab"]:
    """Set the least likely logits, of 1 - top_p together, to -inf, but never the largest."""
    ascending, order = rows.sort(dim=1)
    dropped = ascending.softmax(1).cumsum(1) <= 1 - top_p
    dropped[:, -1] = False
    return rows.masked_fill(dropped.scatter(1, order, dropped), -math.inf)


def check_sampling(sampling: Sampling) -> None:
    """Refuse settings out of range.

    Raises:
        InputError: temperature, guidance power, top-k or top-p is out of range.
    """
    if not sampling.temperature > 0:
        raise InputError(f"temperature must be positive, got {sampling.temperature}")
    if not sampling.guidance_power >= 0:
        raise InputError(f"guidance_power must be 0 or more, got {sampling.guidance_power}")
    if sampling.top_k < 0 or not 0 <= sampling.top_p <= 1:
        raise InputError(
            f"top_k must be 0 or more and top_p in [0, 1], got {sampling.top_k}, {sampling.top_p}"
        )
