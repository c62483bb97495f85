"""What any implementation must spend: matrix products, convolutions and attention calls alone.

Shapes and sequence of calls are those of the authors' code, operands ready, one way or another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Call = Callable[[], object]
WAYS = ("linear", "mm")


class Products:
    """Products with the weights of linear layers, by `linear` or by `mm` of the transposed."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.ready: dict[int, Tensor] = {}

    def of(self, layers: Iterable[nn.Linear], rows: int) -> list[Call]:
        """Return the calls of layers for so many rows."""
        inputs: dict[int, Tensor] = {}
        return [self._one(layer.weight.detach(), rows, inputs) for layer in layers]

    def _one(self, weight: Tensor, rows: int, inputs: dict[int, Tensor]) -> Call:
        x = inputs.setdefault(weight.shape[1], torch.randn(rows, weight.shape[1]))
        if self.way == "linear":
            return partial(F.linear, x, weight)
        if weight.data_ptr() not in self.ready:
            self.ready[weight.data_ptr()] = weight.T.contiguous()
        return partial(torch.mm, x, self.ready[weight.data_ptr()])


def attention(
    images: int, heads: int, channels: int, queries: int, keys: int, mask: Tensor | None = None
) -> Call:
    """Return one call of torch's attention, with a mask added to the scores or without."""
    query = torch.randn(images, heads, queries, channels)
    key, value = (torch.randn(images, heads, keys, channels) for _ in range(2))
    return lambda: F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def convolutions(network: nn.Module, task: Call, *, last: bool) -> list[Call]:
    """Return the convolutions and the attention that `task` makes inside `network`.

    Args:
        network: where to look.
        task: runs the network.
        last: channels last; the authors' code has them first.
    """
    layout = torch.channels_last if last else torch.contiguous_format
    calls: list[Call] = []

    def note(module: nn.Conv2d, inputs: tuple[Tensor], _output: Tensor) -> None:
        x = torch.randn(inputs[0].shape).contiguous(memory_format=layout)
        weight = module.weight.detach().contiguous(memory_format=layout)
        calls.append(
            lambda: F.conv2d(x, weight, module.bias, module.stride, module.padding)  # type: ignore[arg-type]  # of Conv2d
        )
        if x.shape[1] * 3 == weight.shape[0]:  # the qkv of an attention block
            parts = torch.randn(3, x.shape[0], 1, x.shape[2] * x.shape[3], x.shape[1])
            calls.append(lambda: F.scaled_dot_product_attention(*parts))

    found = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    hooks = [module.register_forward_hook(note) for module in found]
    task()
    for hook in hooks:
        hook.remove()
    return calls


def distances(codes: nn.Embedding, rows: Iterable[int]) -> list[Call]:
    """Return the products that compare so many rows at a time with all codes."""
    weight = codes.weight.detach().T.contiguous()
    return [partial(torch.mm, torch.randn(count, weight.shape[0]), weight) for count in rows]


def run_all(calls: list[Call]) -> Call:
    """Return all calls as one."""

    def run() -> None:
        for call in calls:
            call()

    return run


def ways(make: Callable[[Products], list[Call]]) -> Mapping[str, Call]:
    """Return the calls that `make` lists, once with each kind of product."""
    return {way: run_all(make(Products(way))) for way in WAYS}


def layouts(network: nn.Module, task: Call, others: list[Call]) -> Mapping[str, Call]:
    """Return a tokenizer's convolutions, in the authors' layout, with its other calls."""
    return {"channels first": run_all(convolutions(network, task, last=False) + others)}
