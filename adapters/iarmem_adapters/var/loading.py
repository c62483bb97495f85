"""How VAR networks are told by their weights, and built; the sizes that are known."""

from __future__ import annotations

import torch

from iarmem_adapters.checkpoints.loading import Blueprint, Family
from iarmem_adapters.checkpoints.states import State
from iarmem_adapters.organisms import recorded_sizes

from .sizes import TOKENIZER, TRANSFORMER, tokenizer_sizes, transformer_sizes
from .tokenizer import MultiScaleVQVAE, VQVAEConfig
from .transformer import VARConfig, VARTransformer
from .variants import SIZES, variants

USAGE = "quantize.ema_vocab_hit_SV"


def configs(name: str) -> tuple[VARConfig, VQVAEConfig]:
    """Return the sizes of a variant's transformer and tokenizer."""
    if name not in SIZES:
        transformer, tokenizer = recorded_sizes("var")
        return VARConfig(**transformer), VQVAEConfig(**tokenizer)
    sizes = SIZES[name]
    network = VARConfig(
        sizes.depth,
        64 * sizes.depth,
        sizes.depth,
        sizes.patch_nums,
        shared_adaln=sizes.shared_adaln,
    )
    return network, VQVAEConfig(sizes.patch_nums)


def _fit_usage(state: State, config: VQVAEConfig) -> None:
    """Forget how often codes were used at another number of scales; no result depends on it."""
    used = state.get(USAGE)
    if used is not None and used.dim() == 2 and used.shape[0] != len(config.patch_nums):
        state[USAGE] = torch.zeros(len(config.patch_nums), used.shape[1])


FAMILY = Family(
    "var",
    variants,
    configs,
    Blueprint(TRANSFORMER, VARTransformer, transformer_sizes),
    Blueprint(TOKENIZER, MultiScaleVQVAE, tokenizer_sizes),
    shared=("vocab_size", "code_width"),
    adapt=_fit_usage,
)
