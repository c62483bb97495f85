"""VAR's transformer: next-scale prediction over ten growing token maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from iarmem_adapters.layers.precision import keeps_precision

from .attention import KeyValueCache
from .block import AdaptiveNorm, Block, adaptive_linear


@dataclass(frozen=True, slots=True)
class VARConfig:
    """The sizes of one VAR transformer.

    Attributes:
        depth: number of blocks.
        width: channels of the residual stream; a multiple of `heads`.
        heads: attention heads in each block.
        patch_nums: side of each scale's square token map, coarse to fine.
        num_classes: classes; one more label, `num_classes` itself, means no class.
        vocab_size: codes of the tokenizer.
        code_width: channels of one code.
        shared_adaln: one adaptive-norm projection for all blocks, as in the 512-pixel model.
    """

    depth: int
    width: int
    heads: int
    patch_nums: tuple[int, ...]
    num_classes: int = 1000
    vocab_size: int = 4096
    code_width: int = 32
    shared_adaln: bool = False

    @property
    def ends(self) -> tuple[int, ...]:
        """Where each scale ends in the flat token sequence."""
        return tuple(
            sum(side * side for side in self.patch_nums[: scale + 1])
            for scale in range(len(self.patch_nums))
        )

    @property
    def tokens(self) -> int:
        """Tokens of one image over all scales."""
        return self.ends[-1]


class VARTransformer(nn.Module):
    """Predict every token of every scale from the scales before it.

    Parameter names and shapes are those of the released checkpoints, which load strictly.
    Labels are never dropped, and no call draws random numbers.
    `attn_bias_for_masking` is kept because the checkpoints hold it: attention goes scale by scale
    over the same tokens that this mask leaves, which takes two thirds of the time.

    Args:
        config: sizes of the transformer, whose weights are drawn afresh.

    Raises:
        ValueError: the width is not a multiple of the heads, or there is no scale.

    Reference: arXiv 2404.02905, section 3.2 and figure 4.
    """

    def __init__(self, config: VARConfig) -> None:
        super().__init__()
        _check(config)
        self.config = config
        width, scales = config.width, len(config.patch_nums)
        self.pos_start = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_1LC = nn.Parameter(torch.zeros(1, config.tokens, width))
        levels = [k for k, side in enumerate(config.patch_nums) for _ in range(side * side)]
        self.lvl_1L: Tensor
        self.register_buffer("lvl_1L", torch.tensor([levels]))
        self.attn_bias_for_masking: Tensor
        self.register_buffer("attn_bias_for_masking", block_causal(levels))
        self.word_embed = nn.Linear(config.code_width, width)
        self.class_emb = nn.Embedding(config.num_classes + 1, width)
        self.lvl_embed = nn.Embedding(scales, width)
        self.shared_ada_lin = adaptive_linear(width, 6) if config.shared_adaln else nn.Identity()
        self.blocks = nn.ModuleList(
            Block(width, config.heads, shared=config.shared_adaln) for _ in range(config.depth)
        )
        self.head_nm = AdaptiveNorm(width)
        self.head = nn.Linear(width, config.vocab_size)
        _initialise(self)

    def forward(
        self,
        labels: Int[Tensor, " image"],
        x_in: Float[Tensor, "image token_minus_1 code"],
    ) -> Float[Tensor, "image token vocab"]:
        """Return the logits of all tokens, given all tokens (teacher forcing).

        Args:
            labels: class of each image, 0 to `num_classes`; `num_classes` means no class.
            x_in: the tokenizer's `teacher_input`: what is known before each token but the first.

        Returns:
            Unnormalised log-probabilities; those at a position predict that very position.

        Reference: arXiv 2404.02905, equation 6 and figure 4 (stage 2).
        """
        condition = self.condition(labels)
        tokens = torch.cat((self.start(condition), self.embed(x_in)), dim=1)
        seen = self.run_blocks(tokens + self.positions(), condition, self.config.ends)
        return self.logits(seen, condition)

    def condition(self, labels: Int[Tensor, " image"]) -> Float[Tensor, "image width"]:
        """Return the class embeddings."""
        embedded: Tensor = self.class_emb(labels)
        return embedded

    @keeps_precision
    def embed(self, rows: Float[Tensor, "image place code"]) -> Float[Tensor, "image place width"]:
        """Return the inputs of known places, in the transformer's own precision."""
        embedded: Tensor = self.word_embed(rows.to(self.word_embed.weight.dtype))
        return embedded

    def start(self, condition: Float[Tensor, "image width"]) -> Float[Tensor, "image 1 width"]:
        """Return the first position's input, before `positions` is added."""
        return condition.unsqueeze(1) + self.pos_start

    def positions(self) -> Float[Tensor, "1 token width"]:
        """Return what each position adds to its input: its scale's embedding and its own."""
        return self.pos_1LC + F.embedding(self.lvl_1L, self.lvl_embed.weight)

    def run_blocks(
        self,
        x: Float[Tensor, "image token width"],
        condition: Float[Tensor, "image width"],
        ends: tuple[int, ...] | None = None,
        caches: Sequence[KeyValueCache] | None = None,
    ) -> Float[Tensor, "image token width"]:
        """Return the residual stream after all blocks.

        Args:
            x: embedded tokens with `positions` added.
            condition: class embeddings.
            ends: see `SelfAttention`.
            caches: one cache a block, extended by this call; None for none.
        """
        shared = self.shared_ada_lin(condition)
        for index, block in enumerate(self.blocks):
            x = block(x, shared, ends, None if caches is None else caches[index])
        return x

    def logits(
        self, x: Float[Tensor, "image token width"], condition: Float[Tensor, "image width"]
    ) -> Float[Tensor, "image token vocab"]:
        """Return the head's logits of a residual stream, in float32 whatever came in."""
        out: Tensor = self.head(self.head_nm(x, condition))
        return out.float()


def block_causal(levels: Sequence[int]) -> Float[Tensor, "1 1 token token"]:
    """Return 0 where the key's scale is not later than the query's, and minus infinity elsewhere.

    Args:
        levels: scale of each token.
    """
    scale = np.asarray(levels)  # torch's comparison of meta tensors imports its compiler, for 2 s
    later = scale[:, None] < scale[None, :]
    return torch.tensor(np.where(later, -math.inf, 0.0).astype(np.float32))[None, None]


def _check(config: VARConfig) -> None:
    if not config.patch_nums:
        raise ValueError("patch_nums is empty; give the side of each scale's token map")
    if config.width % config.heads:
        raise ValueError(
            f"width must be a multiple of heads, got width {config.width}, heads {config.heads}"
        )


@torch.no_grad()
def _initialise(model: VARTransformer) -> None:
    """Draw every weight, whatever the layers' own initialisation did.

    Linear layers get variance 1 / (3 fan-in); those that write to the residual stream are
    smaller by the square root of the number of writes. Gates start open, at 1.
    """
    depth = model.config.depth
    for name, parameter in model.named_parameters():
        if name.endswith("scale_mul_1H11"):
            parameter.fill_(math.log(4.0))
        elif name.endswith("bias"):
            parameter.zero_()
        elif name.endswith(("attn.proj.weight", "ffn.fc2.weight")):
            parameter.normal_(std=(3 * parameter.shape[1] * 2 * depth) ** -0.5)
        elif "ada_lin" in name:
            parameter.normal_(std=0.5 * (3 * parameter.shape[1]) ** -0.5)
        elif isinstance(model.get_submodule(name.rpartition(".")[0]), nn.Linear):
            parameter.normal_(std=(3 * parameter.shape[1]) ** -0.5)
        else:
            parameter.normal_(std=0.05)
    for name, parameter in model.named_parameters():
        if name.endswith("ada_gss"):
            parameter[:, :, :2] += 1
        elif name.startswith("blocks.") and name.endswith("ada_lin.1.bias"):
            parameter[: 2 * model.config.width] = 1
