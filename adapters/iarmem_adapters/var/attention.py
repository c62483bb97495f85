"""VAR's self-attention with normalised queries and keys, and the cache that it can read."""

from __future__ import annotations

import itertools
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

MAX_LOG_SCALE = math.log(100.0)


class KeyValueCache:
    """Keep the keys and values of the tokens that one block has seen in one run.

    `modulation` keeps what the block made of the class, which no later call changes.
    The cache is handed from call to call; no module remembers it.
    Memory for all the tokens is taken once, at the first call.

    Args:
        tokens: largest number of tokens.
    """

    def __init__(self, tokens: int) -> None:
        self.length = 0
        self.modulation: Tensor | None = None
        self._tokens = tokens
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def extend(
        self,
        keys: Float[Tensor, "image head token channel"],
        values: Float[Tensor, "image head token channel"],
    ) -> tuple[
        Float[Tensor, "image head seen channel"],
        Float[Tensor, "image head seen channel"],
    ]:
        """Append keys and values, and return those of all tokens so far.

        Args:
            keys: normalised keys of the new tokens, without the attention scale.
            values: values of the new tokens.

        Raises:
            ValueError: there are more tokens than the cache was made for.
        """
        begin, end = self.length, self.length + keys.shape[2]
        if end > self._tokens:
            raise ValueError(f"the cache was made for {self._tokens} tokens, got {end}")
        if self._keys is None or self._values is None:
            shape = (*keys.shape[:2], self._tokens, keys.shape[3])
            self._keys, self._values = keys.new_empty(shape), values.new_empty(shape)
        self._keys[:, :, begin:end] = keys
        self._values[:, :, begin:end] = values
        self.length = end
        return self._keys[:, :, :end], self._values[:, :, :end]


class SelfAttention(nn.Module):
    """Attend with l2-normalised queries and keys and one learned scale a head.

    Args:
        width: channels of the residual stream.
        heads: number of attention heads.

    Reference: arXiv 2404.02905, section 3.3 and its training details.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale_mul_1H11 = nn.Parameter(torch.full((1, heads, 1, 1), math.log(4.0)))
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.zero_k_bias: Tensor
        self.register_buffer("zero_k_bias", torch.zeros(width))
        self.mat_qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "image token width"],
        ends: tuple[int, ...] | None = None,
        cache: KeyValueCache | None = None,
    ) -> Float[Tensor, "image token width"]:
        """Return what each token reads from the tokens that it may see.

        Args:
            x: normalised and modulated residual stream.
            ends: where each scale ends among the tokens, which then see their own scale and
                the ones before it; None lets each token see all.
            cache: keys and values of earlier tokens, extended by this call; None for none.
                With `ends` it must be empty.
        """
        query, key, value = self._project(x)
        scale = self.scale_mul_1H11.float().clamp_max(MAX_LOG_SCALE).exp()
        query, key = _normalise(query, scale), _normalise(key)
        if cache is not None:
            key, value = cache.extend(key, value)
        spans = ((0, query.shape[2], key.shape[2]),) if ends is None else _spans(ends)
        read = [
            F.scaled_dot_product_attention(
                query[:, :, begin:end], key[:, :, :seen], value[:, :, :seen], scale=1.0
            ).transpose(1, 2)
            for begin, end, seen in spans
        ]
        joined = read[0] if len(read) == 1 else torch.cat(read, dim=1)
        out: Tensor = self.proj(joined.flatten(2))
        return out

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, each head's in one piece, which attention likes.

        Biases are added here, where all is in reach of the cache; keys have none.
        """
        joined = F.linear(x, self.mat_qkv.weight).view(*x.shape[:2], 3, self.heads, -1)
        query, key, value = (joined[:, :, k].transpose(1, 2).contiguous() for k in range(3))
        query += self.q_bias.view(self.heads, 1, -1)
        value += self.v_bias.view(self.heads, 1, -1)
        return query, key, value


def _spans(ends: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Return begin and end of each scale, and how many tokens it sees."""
    return [(begin, end, end) for begin, end in itertools.pairwise((0, *ends))]


def _normalise(
    x: Float[Tensor, "image head token channel"], scale: Tensor | float = 1.0
) -> Float[Tensor, "image head token channel"]:
    """Divide by the l2 norm over channels (at least 1e-12) and multiply by `scale`.

    In float32, whatever came in; then in its precision again.
    """
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    out: Tensor = x * (scale / norm.clamp_min(1e-12))
    return out.to(x.dtype)
