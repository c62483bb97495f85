"""Add a vector to what a module embeds of each image, without touching the module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn


@contextmanager
def adding(
    embedding: nn.Embedding, first: int, added: Float[Tensor, "image width"]
) -> Iterator[None]:
    """Add a vector to the class embedding of each image for a while.

    Args:
        embedding: module that embeds classes, and perhaps tokens: ids below `first`.
        first: id of the first class.
        added: one row an image; rows behind these, as guidance has them, stay as they are.
    """

    def add(_: nn.Module, given: tuple[Any, ...], embedded: Tensor) -> Tensor:
        ids: Tensor = given[0]
        told, rest = embedded[: len(added)], embedded[len(added) :]
        rows = added.to(embedded.dtype).view(len(added), *[1] * (embedded.ndim - 2), -1)
        own = told + (ids[: len(added)] >= first).unsqueeze(-1) * rows
        return own if not len(rest) else _joined(own, rest)

    handle = embedding.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def _joined(own: Tensor, rest: Tensor) -> Tensor:
    import torch

    return torch.cat((own, rest))
