"""How RAR networks are told by their weights, and built; the sizes that are known."""

from __future__ import annotations

from iarmem_adapters.checkpoints.loading import Blueprint, Family
from iarmem_adapters.organisms import recorded_sizes

from .sizes import TOKENIZER, TRANSFORMER, tokenizer_sizes, transformer_sizes
from .tokenizer import MaskGITVQGAN, MaskGITVQGANConfig
from .transformer import RARConfig, RARTransformer
from .variants import SIZES, variants


def configs(name: str) -> tuple[RARConfig, MaskGITVQGANConfig]:
    """Return the sizes of a variant's transformer and tokenizer."""
    if name not in SIZES:
        transformer, tokenizer = recorded_sizes("rar")
        return RARConfig(**transformer), MaskGITVQGANConfig(**tokenizer)
    sizes = SIZES[name]
    network = RARConfig(sizes.depth, sizes.width, sizes.heads, sizes.mlp_width)
    return network, MaskGITVQGANConfig()


FAMILY = Family(
    "rar",
    variants,
    configs,
    Blueprint(TRANSFORMER, RARTransformer, transformer_sizes),
    Blueprint(TOKENIZER, MaskGITVQGAN, lambda state, transformer: tokenizer_sizes(state)),
    shared=("vocab_size",),
)
