"""Gradients of a loss with respect to neurons' incoming weights; the model stays as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor, nn

from iarmem_plugin.borrowing import uninterrupted
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.neurons.editing import EditableWeights
from iarmem_plugin.neurons.slices import Slice


def gradient_times_weight(
    model: ImageARModel, loss: Callable[[], Tensor]
) -> Float64[np.ndarray, "block neuron"]:
    """Return g.w of every neuron: the sum over its incoming weights of gradient times weight.

    To first order, the loss changes by -e times that when these weights are scaled by 1 - e.

    Args:
        model: the wrapped model, borrowed.
        loss: function that computes the loss through the model, with gradients.

    Raises:
        InputError: a weight is computed anew at every pass, and so is no parameter.
    """
    held = EditableWeights(model.adapter.network, model.layout)
    blocks = [held.reads(block) for block in range(model.layout.num_blocks)]
    weights = list({id(one): one for reads in blocks for _, one in reads}.values())
    with asked_for(weights):
        found = torch.autograd.grad(loss(), weights)
    gradients = {id(one): gradient for one, gradient in zip(weights, found, strict=True)}
    every = torch.arange(model.layout.neurons_per_block, device=model.device)

    def rows(read: Slice, weight: nn.Parameter) -> Tensor:
        gradient, own = (read.taken(one, every) for one in (gradients[id(weight)], weight))
        return (gradient.double() * own.double()).sum(dim=1)

    sums = [torch.stack([rows(*read) for read in reads]).sum(dim=0) for reads in blocks]
    products: np.ndarray = torch.stack(sums).cpu().numpy()
    return products


@contextmanager
def asked_for(weights: Sequence[nn.Parameter]) -> Iterator[None]:
    """Let gradients be asked for of some weights for a while; no `grad` is written.

    Args:
        weights: parameters; whether they require gradients comes back as it was.
    """
    flags = [one.requires_grad for one in weights]
    try:
        for one in weights:
            one.requires_grad_(True)
        with torch.enable_grad():
            yield
    finally:
        with uninterrupted():
            for one, flag in zip(weights, flags, strict=True):
                one.requires_grad_(flag)
