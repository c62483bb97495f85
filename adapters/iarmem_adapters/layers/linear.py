"""A linear layer that is quick for few rows, as one step of a generation has."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

FEW_ROWS = range(6, 33)
"""Numbers of rows for which the CPU's product is quicker with the weights on the left.

Measured at RAR-B's widths, in float32: 8 rows take a quarter less time, 16 rows a sixth.
"""


class Linear(nn.Linear):
    """`nn.Linear`, the same but for rounding."""

    def forward(self, input: Float[Tensor, "*rows inputs"]) -> Float[Tensor, "*rows outputs"]:
        """Return the product with the weights, plus the bias."""
        if not self._few(input):
            return super().forward(input)
        columns = torch.mm(self.weight, input.reshape(-1, self.in_features).T)
        out = input.new_empty(*input.shape[:-1], self.out_features)
        torch.add(columns.T, self.bias, out=out.view(-1, self.out_features))
        return out

    def _few(self, rows: Tensor) -> bool:
        return (
            rows.numel() // self.in_features in FEW_ROWS
            and rows.device.type == "cpu"
            and rows.dtype == torch.float32
            and not torch.is_grad_enabled()
        )
