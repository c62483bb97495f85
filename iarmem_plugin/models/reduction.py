"""What is kept of an activation: one number for each neuron and scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces.layout import spans


def scale_means(
    activation: Float[Tensor, "image token neuron"], positions: Mapping[str, Sequence[int]]
) -> Float[Tensor, "image scale neuron"]:
    """Return the mean of |activation| over each scale's positions, in float32.

    Args:
        activation: what one block's outgoing map reads.
        positions: positions of each scale by its name, ascending.

    Raises:
        InputError: a scale reaches beyond the positions.
    """
    means = []
    for name, numbers in positions.items():
        first, last = numbers[0], numbers[-1]
        if last >= activation.shape[1]:
            raise InputError(
                f"scale {name!r} has the positions {spans(numbers)}, "
                f"the model's are 0 to {activation.shape[1] - 1}"
            )
        adjacent = last - first + 1 == len(numbers)
        part = activation[:, first : last + 1] if adjacent else activation[:, list(numbers)]
        means.append(part.abs().mean(dim=1, dtype=torch.float32))
    return torch.stack(means, dim=1)
