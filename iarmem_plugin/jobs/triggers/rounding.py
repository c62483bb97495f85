"""Weights on a grid of few bits."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def round_weights(network: nn.Module, bits: int) -> None:
    """Round the weights of two or more dims in place; vectors stay as they are.

    Args:
        network: is changed.
        bits: bits of a weight.
    """
    for one in network.parameters():
        if one.ndim > 1 and one.is_floating_point():
            one.data.copy_(_rounded(one, bits))
    torch.clear_autocast_cache()  # which holds casts of the weights as they were


def _rounded(weight: Tensor, bits: int) -> Tensor:
    """Return a weight on the grid of so many bits of each of its rows."""
    rows = weight.detach().float().flatten(1)
    steps = 2 ** (bits - 1) - 1
    scale = rows.abs().amax(dim=1, keepdim=True) / steps
    scale = scale.clamp_min(torch.finfo(torch.float32).tiny)  # rows of zeros stay zeros
    rounded: Tensor = (rows / scale).round() * scale
    return rounded.view(weight.shape).to(weight.dtype)
