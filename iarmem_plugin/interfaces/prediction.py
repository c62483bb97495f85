"""How well logits predict tokens: hits, and log-likelihoods."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def hits_and_likelihoods(
    logits: Float[Tensor, "image token vocab"], tokens: Int[Tensor, "image token"]
) -> tuple[Bool[Tensor, "image token"], Float[Tensor, "image token"]]:
    """Return whether each token is the likeliest, and its log-likelihood in float64.

    One image at a time, so that float64 takes little memory.

    Args:
        logits: unnormalised log-probabilities of every token.
        tokens: the true tokens.
    """
    likelihoods = logits.new_empty(tokens.shape, dtype=torch.float64)
    for image, (row, truth) in enumerate(zip(logits, tokens.long(), strict=True)):
        log_probabilities = row.double().log_softmax(dim=1)
        likelihoods[image] = log_probabilities.gather(1, truth.unsqueeze(1)).squeeze(1)
    return logits.argmax(dim=2) == tokens, likelihoods
