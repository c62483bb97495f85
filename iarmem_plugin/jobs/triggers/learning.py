"""One vector a picture, learned by descent on the picture's own loss; weights are frozen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from iarmem_plugin.borrowing import uninterrupted
from iarmem_plugin.interfaces import Adapter, Condition


def learned(
    model: Any,
    adapter: Adapter,
    tokens: Int[Tensor, "image token"],
    condition: Condition,
    *,
    given: int,
    lr: float,
) -> Iterator[Float[Tensor, "image width"]]:
    """Yield what is added to each class embedding: zeros, and then after each step of Adam.

    Args:
        model: completes and predicts.
        adapter: says where a vector is added.
        tokens: true tokens of each picture.
        condition: what the model is told of each.
        given: tokens whose loss does not count.
        lr: step size.
    """
    added = torch.zeros(len(tokens), adapter.condition_width, device=tokens.device)
    optimizer = torch.optim.Adam([added], lr=lr)
    while True:
        yield added.clone()
        added.grad = _gradient(model, adapter, added, tokens, condition, given)
        optimizer.step()


def _gradient(
    model: Any,
    adapter: Adapter,
    added: Float[Tensor, "image width"],
    tokens: Int[Tensor, "image token"],
    condition: Condition,
    given: int,
) -> Float[Tensor, "image width"]:
    """Return the gradient of each image's own NLL, of the tokens after the prefix."""
    vector = added.clone().requires_grad_(True)
    with frozen(adapter.network), torch.enable_grad(), adapter.condition_embedding(vector):
        logits = model.logits(tokens, condition)[:, given:]
        true = tokens[:, given:].flatten().long()
        every = nn.functional.cross_entropy(logits.flatten(0, 1).float(), true, reduction="sum")
        (gradient,) = torch.autograd.grad(every / (tokens.shape[1] - given), vector)
    return gradient


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Ask for no gradients of a network's weights for a while; all flags come back."""
    flags = [(one, one.requires_grad) for one in network.parameters()]
    try:
        for one, _ in flags:
            one.requires_grad_(False)
        yield
    finally:
        with uninterrupted():
            for one, flag in flags:
                one.requires_grad_(flag)
