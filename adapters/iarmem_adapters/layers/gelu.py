"""GELU by its tanh formula, in less time than torch's."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

CUBIC = 0.044715
FACTOR = 2 * math.sqrt(2 / math.pi)
CHUNK = 65536
"""Numbers handled at a time, few enough for the processor's cache."""


class TanhGELU(nn.GELU):
    """`nn.GELU` with its tanh approximation, the same but for rounding.

    (1 + tanh(u)) / 2 is the logistic function of 2u, which is five times as quick on the CPU.
    """

    def __init__(self) -> None:
        super().__init__(approximate="tanh")

    def forward(self, input: Float[Tensor, "... neuron"]) -> Float[Tensor, "... neuron"]:
        """Return x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2 in a new tensor."""
        if not _quick(input):
            return super().forward(input)
        out = torch.empty_like(input)
        gate = input.new_empty(min(CHUNK, input.numel()))
        factor = torch.full_like(gate, FACTOR)
        for x, to in zip(input.view(-1).split(CHUNK), out.view(-1).split(CHUNK), strict=True):
            part = gate[: len(x)]
            torch.addcmul(factor[: len(x)], x, x, value=FACTOR * CUBIC, out=part)
            torch.mul(x, part.mul_(x).sigmoid_(), out=to)
        return out


def _quick(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.is_contiguous()
        and not torch.is_grad_enabled()
    )
