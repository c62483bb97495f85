"""RAR's transformer: every token of the raster from the tokens before it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .attention import KeyValueCache
from .block import AdaptiveNorm, Block

SPARE_POSITIONS = 1024
SPARE_STEPS = 100


@dataclass(frozen=True, slots=True)
class RARConfig:
    """The sizes of one RAR transformer.

    Attributes:
        depth: number of blocks.
        width: channels of the residual stream; a multiple of `heads`.
        heads: attention heads in each block.
        mlp_width: neurons in each block.
        num_tokens: tokens of one image, in raster order.
        vocab_size: codes of the tokenizer.
        num_classes: classes; one more label, `num_classes` itself, means no class.
    """

    depth: int
    width: int
    heads: int
    mlp_width: int
    num_tokens: int = 256
    vocab_size: int = 1024
    num_classes: int = 1000


class RARTransformer(nn.Module):
    """Predict every token of an image from its class and the tokens before it, in raster order.

    Parameter names and shapes are those of the released checkpoints, which load strictly.
    Labels are never dropped, tokens never reordered, and no call draws random numbers.

    Inside, a sequence is ``[start, class, token 1 .. token n]``. Element k, counted from 0, holds
    token k - 1 and predicts token k, so the last token of N is predicted by element N.

    Args:
        config: sizes of the transformer, whose weights are drawn afresh.

    Attributes:
        apart: whether images of one class are modulated each by itself, as where a vector is added
            to the class embedding of each.

    Raises:
        ValueError: the width is not a multiple of the heads, or there are no tokens.

    Reference: arXiv 2411.00776, section 3.
    """

    def __init__(self, config: RARConfig) -> None:
        super().__init__()
        _check(config)
        self.config = config
        self.apart = False
        width, tokens = config.width, config.num_tokens
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens + SPARE_POSITIONS, width))
        self.target_aware_pos_embed = nn.Parameter(torch.zeros(1, tokens + SPARE_POSITIONS, width))
        self.timesteps_embeddings = nn.Parameter(torch.zeros(1, tokens + SPARE_STEPS, width))
        self.blocks = nn.ModuleList(
            Block(width, config.heads, config.mlp_width) for _ in range(config.depth)
        )
        # codes, a mask that is never used, classes, no class
        self.embeddings = nn.Embedding(config.vocab_size + 1 + config.num_classes + 1, width)
        self.adaln_before_head = AdaptiveNorm(width)
        self.lm_head = nn.Linear(width, config.vocab_size)
        _initialise(self)

    def forward(
        self, labels: Int[Tensor, " image"], tokens: Int[Tensor, "image token"]
    ) -> Float[Tensor, "image token+1 vocab"]:
        """Return the logits of all tokens, given all tokens (teacher forcing).

        Args:
            labels: class of each image, 0 to `num_classes`; `num_classes` means no class.
            tokens: in raster order; fewer than `num_tokens` are a prefix.

        Returns:
            Unnormalised log-probabilities; those at position k predict token k, both counted
            from 0. What follows the last token of an image predicts nothing.

        Images of one class share their modulations, a third of the blocks' products, so that a
        batch of one class is the quickest; `adaLN_modulation` then sees each class once.

        Raises:
            ValueError: there are more tokens than `num_tokens`.

        Reference: arXiv 2411.00776, section 3.
        """
        x = self.embed(labels, tokens)
        classes, rows = self.distinct(labels)
        condition = self.condition(classes, 0, x.shape[1])
        x = self.run_blocks(x, (expand_rows(one, rows) for one in self.modulations(condition)))
        return self.logits(x[:, 1:], expand_rows(self.head_modulation(condition[:, 1:]), rows))

    def embed(
        self, labels: Int[Tensor, " image"], tokens: Int[Tensor, "image token"]
    ) -> Float[Tensor, "image token+2 width"]:
        """Return the start, the classes and the tokens, each with its `positions`.

        Raises:
            ValueError: there are more tokens than `num_tokens`.
        """
        if tokens.shape[1] > self.config.num_tokens:
            raise ValueError(
                f"got {tokens.shape[1]} tokens an image, expected at most {self.config.num_tokens}"
            )
        start = self.cls_token.expand(labels.shape[0], -1, -1)
        content = (start, self._embed_labels(labels), self.embeddings(tokens))
        return torch.cat(content, dim=1) + self.positions()[:, : tokens.shape[1] + 2]

    def positions(self) -> Float[Tensor, "1 element width"]:
        """Return what each element adds to its content: its own position and its target's.

        All elements but the first, the start, and the last, which holds the last token, have a
        target.
        """
        last = self.config.num_tokens + 1
        targets = self.target_aware_pos_embed[:, 2 : last + 1]
        targets = torch.nn.functional.pad(targets, (0, 0, 1, 1))
        return self.pos_embed[:, : last + 1] + targets

    def condition(
        self, labels: Int[Tensor, " image"], begin: int, end: int
    ) -> Float[Tensor, "image element width"]:
        """Return what modulates the elements from `begin` to before `end`: class and step."""
        return self._embed_labels(labels) + self.timesteps_embeddings[:, begin:end]

    def modulations(
        self, condition: Float[Tensor, "image element width"]
    ) -> Iterator[Float[Tensor, "image element modulation"]]:
        """Yield each block's modulation, computed when it is asked for."""
        for block in self.blocks:
            yield cast(Block, block).adaLN_modulation(condition)

    def head_modulation(
        self, condition: Float[Tensor, "image element width"]
    ) -> Float[Tensor, "image element modulation"]:
        """Return the modulation of the norm before the head."""
        out: Tensor = self.adaln_before_head.adaLN_modulation(condition)
        return out

    def run_blocks(
        self,
        x: Float[Tensor, "image element width"],
        modulations: Iterable[Float[Tensor, "image element modulation"]],
        caches: Sequence[KeyValueCache] | None = None,
    ) -> Float[Tensor, "image element width"]:
        """Return the residual stream after all blocks.

        Args:
            x: content with `positions` added.
            modulations: one a block, see `modulations`.
            caches: one cache a block, extended by this call; None for none.
        """
        for index, (block, modulation) in enumerate(zip(self.blocks, modulations, strict=True)):
            x = block(x, modulation, None if caches is None else caches[index])
        return x

    def logits(
        self,
        x: Float[Tensor, "image element width"],
        modulation: Float[Tensor, "image element modulation"],
    ) -> Float[Tensor, "image element vocab"]:
        """Return the head's logits of a residual stream, in float32 whatever came in."""
        out: Tensor = self.lm_head(self.adaln_before_head(x, modulation))
        return out.float()

    def distinct(
        self, labels: Int[Tensor, " image"]
    ) -> tuple[Int[Tensor, " label"], Tensor | None]:
        """Return each class once, and which one each image has; None where each has its own."""
        if self.apart:
            return labels, None
        classes, rows = labels.unique(return_inverse=True)
        if len(classes) == len(labels):  # in an order of their own
            return labels, None
        return classes, rows

    def _embed_labels(self, labels: Tensor) -> Tensor:
        """Return [image, 1, width]; classes stand behind the codes and the mask."""
        embedded: Tensor = self.embeddings(labels + self.config.vocab_size + 1)
        return embedded.unsqueeze(1)


def expand_rows(of_classes: Tensor, rows: Tensor | None) -> Tensor:
    """Return each image's modulations, of those of the classes; one class is not copied."""
    if rows is None:
        return of_classes
    if len(of_classes) == 1:
        return of_classes.expand(len(rows), -1, -1)
    return of_classes[rows]


def _check(config: RARConfig) -> None:
    if config.num_tokens < 1:
        raise ValueError(f"num_tokens must be 1 or more, got {config.num_tokens}")
    if config.width % config.heads:
        raise ValueError(
            f"width must be a multiple of heads, got width {config.width}, heads {config.heads}"
        )


@torch.no_grad()
def _initialise(model: RARTransformer) -> None:
    """Draw every weight, whatever the layers' own initialisation did.

    Linear layers get variance 1 / (3 fan-in); those that write to the residual stream are
    smaller by the square root of the number of writes. Gates start open, at 1.
    """
    depth, width = model.config.depth, model.config.width
    for name, parameter in model.named_parameters():
        module = model.get_submodule(name.rpartition(".")[0])
        if name.endswith("bias"):
            parameter.zero_()
        elif isinstance(module, nn.LayerNorm):
            parameter.fill_(1)
        elif name.endswith(("attn.proj.weight", "mlp.fc2.weight")):
            parameter.normal_(std=(3 * parameter.shape[1] * 2 * depth) ** -0.5)
        elif "adaLN" in name:
            parameter.normal_(std=0.5 * (3 * width) ** -0.5)
        elif isinstance(module, nn.Linear):
            parameter.normal_(std=(3 * parameter.shape[1]) ** -0.5)
        else:
            parameter.normal_(std=0.05)
    for name, parameter in model.named_parameters():
        if name.startswith("blocks.") and name.endswith("adaLN_modulation.1.bias"):
            gates = parameter.view(6, width)
            gates[2].fill_(1)
            gates[5].fill_(1)
