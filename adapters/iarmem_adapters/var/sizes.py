"""The sizes of a VAR, read from the shapes of its weights."""

from __future__ import annotations

import math

import torch

from iarmem_adapters.checkpoints.identify import Signature
from iarmem_adapters.checkpoints.sizes import autoencoder_sizes, numbered
from iarmem_adapters.checkpoints.states import State

from .tokenizer import VQVAEConfig
from .transformer import VARConfig

TRANSFORMER = Signature(
    "VAR transformer",
    "--weights",
    ("pos_start", "pos_1LC", "lvl_1L", "word_embed.weight", "head_nm.ada_lin.1.weight"),
)
TOKENIZER = Signature(
    "VAR tokenizer",
    "--tokenizer",
    ("quant_conv.weight", "post_quant_conv.weight", "encoder.mid.block_1.conv1.weight"),
)


def transformer_sizes(state: State) -> VARConfig:
    """Return a transformer's sizes.

    Raises:
        KeyError: an entry is missing.
        IndexError: an entry has too few dimensions.
        ValueError: shapes that no VAR transformer has.
    """
    width = state["pos_1LC"].shape[2]
    heads = state["blocks.0.attn.scale_mul_1H11"].shape[1]
    if heads == 0 or width % heads:
        raise ValueError(f"its width {width} is not a multiple of its {heads} heads")
    return VARConfig(
        depth=numbered(state, "blocks."),
        width=width,
        heads=heads,
        patch_nums=_sides(state["lvl_1L"]),
        num_classes=state["class_emb.weight"].shape[0] - 1,
        vocab_size=state["head.weight"].shape[0],
        code_width=state["word_embed.weight"].shape[1],
        shared_adaln="blocks.0.ada_gss" in state,
    )


def tokenizer_sizes(state: State, transformer: VARConfig) -> VQVAEConfig:
    """Return a tokenizer's sizes; its scales are the transformer's, since no weight tells them.

    Raises:
        KeyError: an entry is missing.
        IndexError: an entry has too few dimensions.
        ValueError: shapes that no VAR tokenizer has.
    """
    return VQVAEConfig(transformer.patch_nums, **autoencoder_sizes(state))


def _sides(levels: torch.Tensor) -> tuple[int, ...]:
    scales, counts = torch.unique_consecutive(levels.flatten(), return_counts=True)
    sides = tuple(math.isqrt(count) for count in counts.tolist())
    whole = [side * side for side in sides] == counts.tolist()
    if not whole or scales.tolist() != list(range(len(sides))):
        raise ValueError(
            f"lvl_1L counts {counts.tolist()[:12]} positions of its scales, no squares"
        )
    return sides
