"""One block of RAR's transformer: attention and MLP, modulated at every position."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from iarmem_adapters.layers.linear import Linear

from .attention import NORM_EPS, KeyValueCache, SelfAttention


class FeedForward(nn.Module):
    """The MLP of a block: `fc1`, exact GELU, `fc2`, each its own module.

    Args:
        width: channels of the residual stream.
        mlp_width: number of neurons.
    """

    def __init__(self, width: int, mlp_width: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, mlp_width)
        self.act = nn.GELU()
        self.fc2 = Linear(mlp_width, width)

    def forward(
        self, x: Float[Tensor, "image element width"]
    ) -> Float[Tensor, "image element width"]:
        """Return fc2(GELU(fc1(x)))."""
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out


class Block(nn.Module):
    """One transformer block whose norms and outputs are modulated.

    The modulation is computed apart, by `adaLN_modulation`, since it depends on the label and
    the position alone: generation computes it for many positions at a time.

    Args:
        width: channels of the residual stream.
        heads: number of attention heads.
        mlp_width: number of neurons.
    """

    def __init__(self, width: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = FeedForward(width, mlp_width)
        self.adaLN_modulation = adaptive_linear(width, 6)

    def forward(
        self,
        x: Float[Tensor, "image element width"],
        modulation: Float[Tensor, "image element modulation"],
        cache: KeyValueCache | None = None,
    ) -> Float[Tensor, "image element width"]:
        """Return the residual stream after attention and MLP.

        Args:
            x: the residual stream.
            modulation: what `adaLN_modulation` makes of the condition: shift, scale and gate of
                the attention, then of the MLP, each of `width` channels.
            cache: see `SelfAttention`.
        """
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.chunk(6, dim=2)
        read = self.attn(torch.addcmul(shift1, self.norm1(x), 1 + scale1), cache)
        x = torch.addcmul(x, read, gate1)
        return torch.addcmul(x, self.mlp(torch.addcmul(shift2, self.norm2(x), 1 + scale2)), gate2)


class AdaptiveNorm(nn.Module):
    """The layer norm before the head; it has no weights of its own.

    Args:
        width: channels of the residual stream.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.adaLN_modulation = adaptive_linear(width, 2)

    def forward(
        self,
        x: Float[Tensor, "image element width"],
        modulation: Float[Tensor, "image element modulation"],
    ) -> Float[Tensor, "image element width"]:
        """Return `x` normalised and modulated.

        Args:
            x: the residual stream.
            modulation: what `adaLN_modulation` makes of the condition: scale, then shift, the
                other way round than in a block.
        """
        scale, shift = modulation.chunk(2, dim=2)
        return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=NORM_EPS), 1 + scale)


def adaptive_linear(width: int, parts: int) -> nn.Sequential:
    """Return SiLU, then a linear layer from `width` to `parts` times `width` channels."""
    return nn.Sequential(nn.SiLU(), nn.Linear(width, parts * width))
