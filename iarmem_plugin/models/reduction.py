"""What is kept of an activation: one number for each neuron and scale."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Scale


def scale_means(
    activation: Float[Tensor, "image token neuron"], scales: tuple[Scale, ...]
) -> Float[Tensor, "image scale neuron"]:
    """Return the mean of |activation| over each scale's tokens, in float32.

    Args:
        activation: output of one block's activation module.
        scales: scales that the tokens belong to.

    Raises:
        InputError: a scale reaches beyond the tokens.
    """
    means = []
    for scale in scales:
        first, last = scale.tokens[0], scale.tokens[-1]
        if last >= activation.shape[1]:
            raise InputError(
                f"scale {scale.name!r} has the positions {scale.spans}, "
                f"the model's are 0 to {activation.shape[1] - 1}"
            )
        adjacent = last - first + 1 == len(scale.tokens)
        part = activation[:, first : last + 1] if adjacent else activation[:, list(scale.tokens)]
        means.append(part.abs().mean(dim=1, dtype=torch.float32))
    return torch.stack(means, dim=1)
