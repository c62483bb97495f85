"""The sizes of a RAR, read from the shapes of its weights."""

from __future__ import annotations

from iarmem_adapters.checkpoints.identify import Signature
from iarmem_adapters.checkpoints.sizes import autoencoder_sizes, numbered
from iarmem_adapters.checkpoints.states import State

from .tokenizer import MaskGITVQGANConfig
from .transformer import SPARE_POSITIONS, RARConfig

TRANSFORMER = Signature(
    "RAR transformer",
    "--weights",
    ("target_aware_pos_embed", "timesteps_embeddings", "embeddings.weight", "lm_head.weight"),
)
TOKENIZER = Signature(
    "RAR tokenizer",
    "--tokenizer",
    ("encoder.mid.0.conv1.weight", "decoder.mid.0.conv1.weight", "decoder.up.1.upsample_conv.bias"),
)


def transformer_sizes(state: State) -> RARConfig:
    """Return a transformer's sizes.

    Raises:
        KeyError: an entry is missing.
        IndexError: an entry has too few dimensions.
        ValueError: shapes that no RAR transformer has.
    """
    width = state["cls_token"].shape[2]
    head_width = state["blocks.0.attn.q_norm.weight"].shape[0]
    tokens = state["pos_embed"].shape[1] - SPARE_POSITIONS
    codes = state["lm_head.weight"].shape[0]
    classes = state["embeddings.weight"].shape[0] - codes - 2
    if head_width == 0 or width % head_width:
        raise ValueError(f"its width {width} is not a multiple of its heads' width {head_width}")
    if tokens < 1 or classes < 1:
        raise ValueError(f"its tables leave {tokens} tokens an image and {classes} classes")
    return RARConfig(
        depth=numbered(state, "blocks."),
        width=width,
        heads=width // head_width,
        mlp_width=state["blocks.0.mlp.fc1.weight"].shape[0],
        num_tokens=tokens,
        vocab_size=codes,
        num_classes=classes,
    )


def tokenizer_sizes(state: State) -> MaskGITVQGANConfig:
    """Return a tokenizer's sizes.

    Raises:
        KeyError: an entry is missing.
        IndexError: an entry has too few dimensions.
        ValueError: shapes that no RAR tokenizer has.
    """
    return MaskGITVQGANConfig(**autoencoder_sizes(state))
