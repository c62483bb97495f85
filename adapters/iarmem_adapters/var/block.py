"""One block of VAR's transformer: attention and MLP between class-conditional layer norms."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from iarmem_adapters.layers.gelu import TanhGELU

from .attention import KeyValueCache, SelfAttention

NORM_EPS = 1e-6


class FeedForward(nn.Module):
    """The MLP of a block: `fc1`, tanh-approximated GELU, `fc2`, each its own module.

    Args:
        width: channels of the residual stream; there are four times as many neurons.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.act = TanhGELU()
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Float[Tensor, "image token width"]) -> Float[Tensor, "image token width"]:
        """Return fc2(GELU(fc1(x)))."""
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out


class Block(nn.Module):
    """One transformer block with adaptive layer norms and output gates.

    Args:
        width: channels of the residual stream.
        heads: number of attention heads.
        shared: whether all blocks share their adaptive norms; the block then owns only its offset,
            `ada_gss`.
    """

    def __init__(self, width: int, heads: int, *, shared: bool) -> None:
        super().__init__()
        self.shared = shared
        if self.shared:
            self.ada_gss = nn.Parameter(torch.zeros(1, 1, 6, width))
        self.attn = SelfAttention(width, heads)
        self.ffn = FeedForward(width)
        if not self.shared:
            self.ada_lin = adaptive_linear(width, 6)

    def forward(
        self,
        x: Float[Tensor, "image token width"],
        condition: Float[Tensor, "image modulation"],
        ends: tuple[int, ...] | None = None,
        cache: KeyValueCache | None = None,
    ) -> Float[Tensor, "image token width"]:
        """Return the residual stream after attention and MLP.

        Args:
            x: the residual stream.
            condition: `width` channels of the class embedding, or, with shared adaptive norms,
                the 6 times `width` channels of the shared projection.
            ends: see `SelfAttention`.
            cache: see `SelfAttention`.
        """
        gate1, gate2, scale1, scale2, shift1, shift2 = self._modulation(condition, cache).unbind(2)
        x = torch.addcmul(x, self.attn(modulate(x, scale1, shift1), ends, cache), gate1)
        return torch.addcmul(x, self.ffn(modulate(x, scale2, shift2)), gate2)

    def _modulation(self, condition: Tensor, cache: KeyValueCache | None) -> Tensor:
        if cache is None:
            return self._project(condition)
        if cache.modulation is None:
            cache.modulation = self._project(condition)
        return cache.modulation

    def _project(self, condition: Tensor) -> Tensor:
        if self.shared:
            return self.ada_gss + condition.view(condition.shape[0], 1, 6, -1)
        projected: Tensor = self.ada_lin(condition)
        return projected.view(condition.shape[0], 1, 6, -1)


class AdaptiveNorm(nn.Module):
    """The class-conditional layer norm before the head.

    Args:
        width: channels of the residual stream.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ada_lin = adaptive_linear(width, 2)

    def forward(
        self, x: Float[Tensor, "image token width"], condition: Float[Tensor, "image width"]
    ) -> Float[Tensor, "image token width"]:
        """Return `x` normalised, scaled and shifted as the class embedding asks."""
        scale, shift = self.ada_lin(condition).unsqueeze(1).chunk(2, dim=2)
        return modulate(x, scale, shift)


def adaptive_linear(width: int, parts: int) -> nn.Sequential:
    """Return SiLU, then a linear layer from `width` to `parts` times `width` channels."""
    return nn.Sequential(nn.SiLU(), nn.Linear(width, parts * width))


def modulate(
    x: Float[Tensor, "image token width"],
    scale: Float[Tensor, "image 1 width"],
    shift: Float[Tensor, "image 1 width"],
) -> Float[Tensor, "image token width"]:
    """Return LayerNorm(x) * (1 + scale) + shift; the norm has no weights of its own."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=NORM_EPS), 1 + scale)
