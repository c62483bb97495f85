"""RAR's causal self-attention with normalised queries and keys, and the cache that it can read."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from iarmem_adapters.layers.linear import Linear

NORM_EPS = 1e-6


class KeyValueCache:
    """Keep the keys and values of the elements that one block has seen in one run.

    The cache is handed from call to call; no module remembers it.
    Memory for all the elements is taken once, at the first call.

    Args:
        elements: largest number of elements.
    """

    def __init__(self, elements: int) -> None:
        self.length = 0
        self._elements = elements
        self._kept: tuple[Tensor, Tensor] | None = None

    def extend(
        self,
        keys: Float[Tensor, "image head element channel"],
        values: Float[Tensor, "image head element channel"],
    ) -> tuple[
        Float[Tensor, "image head seen channel"],
        Float[Tensor, "image head seen channel"],
    ]:
        """Append keys and values, and return those of all elements so far.

        Args:
            keys: normalised keys of the new elements.
            values: values of the new elements.

        Raises:
            ValueError: there are more elements than the cache was made for, or several new ones
                after others, which would see each other.
        """
        begin, end = self.length, self.length + keys.shape[2]
        if end > self._elements:
            raise ValueError(f"the cache was made for {self._elements} elements, got {end}")
        if begin and end - begin > 1:
            raise ValueError(f"got {end - begin} elements after {begin}, expected one at a time")
        if self._kept is None:
            shape = (*keys.shape[:2], self._elements, keys.shape[3])
            self._kept = keys.new_empty(shape), values.new_empty(shape)
        for kept, new in zip(self._kept, (keys, values), strict=True):
            kept[:, :, begin:end] = new
        self.length = end
        return self._kept[0][:, :, :end], self._kept[1][:, :, :end]


class SelfAttention(nn.Module):
    """Attend to the past, with layer-normalised queries and keys.

    Args:
        width: channels of the residual stream.
        heads: number of attention heads, which share their norms.

    Reference: arXiv 2411.00776, its implementation details.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.q_norm = nn.LayerNorm(width // heads, eps=NORM_EPS)
        self.k_norm = nn.LayerNorm(width // heads, eps=NORM_EPS)
        self.proj = Linear(width, width)

    def forward(
        self, x: Float[Tensor, "image element width"], cache: KeyValueCache | None = None
    ) -> Float[Tensor, "image element width"]:
        """Return what each element reads from itself and the elements before it.

        Args:
            x: normalised and modulated residual stream.
            cache: keys and values of earlier elements, extended by this call; None for none.
                Unless it is empty, `x` must be one element.
        """
        joined = self.qkv(x).view(*x.shape[:2], 3, self.heads, -1)
        query, key, value = joined.permute(2, 0, 3, 1, 4).unbind(0)
        query, key = self.q_norm(query), self.k_norm(key)
        if cache is not None:
            key, value = cache.extend(key, value)
        causal = query.shape[2] > 1  # one element, the newest, sees all
        read = F.scaled_dot_product_attention(query, key, value, is_causal=causal)
        out: Tensor = self.proj(read.transpose(1, 2).flatten(2))
        return out
