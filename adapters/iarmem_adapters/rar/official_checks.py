"""Recognise the official RAR objects by their structure, and refuse what would go wrong.

Facts about the published code (arXiv 2411.00776) that this relies on are listed in
docs/own-models.md.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from iarmem_adapters.layers.undrawn import undrawn
from iarmem_adapters.official import (
    check_attribute,
    check_devices,
    check_dtype,
    check_mask,
    compare_entries,
    has_parts,
    read_sizes,
    require_parts,
)
from iarmem_plugin.errors import InputError

from .attention import NORM_EPS
from .sizes import tokenizer_sizes, transformer_sizes
from .tokenizer import MaskGITVQGAN
from .transformer import SPARE_POSITIONS, RARConfig, RARTransformer

PARTS = (
    *("cls_token", "pos_embed", "target_aware_pos_embed", "timesteps_embeddings", "embeddings"),
    *("lm_head", "adaln_before_head.adaLN_modulation", "blocks"),
)
BLOCK_PARTS = (
    *("attn.qkv", "attn.q_norm", "attn.k_norm", "mlp.fc1", "mlp.act", "mlp.fc2"),
    "adaLN_modulation",
)
DRIVEN = ("random_ratio", "use_checkpoint", "forward_fn", "attn_mask")
BLOCK_DRIVEN = ("attn.kv_cache", "attn.k_cache", "attn.v_cache", "norm1", "norm2")
TOKENIZER_PARTS = ("encoder", "decoder", "quantize")
NORMS = ("norm1", "norm2", "attn.q_norm", "attn.k_norm")
EPS = "the released models use nn.LayerNorm(..., eps=1e-6)"
ACTIVATION = "the released models use the exact nn.GELU()"
ORDER = (
    "its forward would put the tokens in a random order; call model.set_random_ratio(0.0), as the "
    "official loader does"
)


def is_official(model: nn.Module) -> bool:
    """Tell whether a model has the parts of the official RAR transformer."""
    return (
        has_parts(model, PARTS)
        and isinstance(model.blocks, nn.ModuleList)
        and len(model.blocks) > 0
        and all(has_parts(block, BLOCK_PARTS) for block in model.blocks)
    )


def check_transformer(network: Any) -> RARConfig:
    """Return the sizes of an official transformer.

    Raises:
        InputError: it would not compute what the published models compute.
    """
    require_parts(network, DRIVEN)
    for index, block in enumerate(network.blocks):
        require_parts(block, BLOCK_DRIVEN, where=f"blocks.{index}")
    config = read_sizes(transformer_sizes, network, "RAR")
    with undrawn():
        plain = RARTransformer(config).state_dict()
    compare_entries(network, plain, "RAR")
    check_order(network)
    side = config.num_tokens + SPARE_POSITIONS
    build = "build it with RAR(config)"
    check_attribute(network, "attn_mask.shape", (side, side), build, tuple)
    causal = torch.full((side, side), -torch.inf).triu(1)
    check_mask(network, "attn_mask", causal, build)
    check_attribute(network, "adaln_before_head.norm_final.eps", NORM_EPS, EPS)
    for index, block in enumerate(network.blocks):
        where = f"blocks.{index}"
        check_attribute(block, "mlp.act.approximate", "none", ACTIVATION, where=where)
        for norm in NORMS:
            check_attribute(block, f"{norm}.eps", NORM_EPS, EPS, where=where)
    return config


def check_order(network: Any) -> None:
    """Refuse a random order of tokens.

    Raises:
        InputError: `random_ratio` is not 0.
    """
    check_attribute(network, "random_ratio", 0, ORDER)


def check_tokenizer(network: Any, config: RARConfig, tokenizer: Any) -> None:
    """Refuse what is not the official tokenizer of an official transformer.

    Raises:
        InputError: it is missing, another one, of other sizes, or on another device.
    """
    if tokenizer is None:
        raise InputError(
            "a RAR object does not hold its tokenizer: hand over both, "
            "wrap(model, tokenizer), the tokenizer being a PretrainedTokenizer"
        )
    parts = tuple(name for name, _ in tokenizer.named_children())
    if set(parts) != set(TOKENIZER_PARTS) or not has_parts(
        tokenizer, ("quantize.embedding.weight", "encode", "decode")
    ):
        raise InputError(
            f"the tokenizer is a {type(tokenizer).__name__} with the parts "
            f"{', '.join(parts) or 'none'}; expected RAR's MaskGIT-VQGAN with "
            f"{', '.join(TOKENIZER_PARTS)} and the methods encode and decode"
        )
    sizes = read_sizes(tokenizer_sizes, tokenizer, "RAR tokenizer")
    with undrawn():
        plain = MaskGITVQGAN(sizes).state_dict()
    compare_entries(tokenizer, plain, "RAR's tokenizer")
    check_dtype(tokenizer, "RAR's tokenizer", "call .float() on it; other precisions change tokens")
    _check_fit(config, sizes.vocab_size)
    check_devices(network, tokenizer)


def _check_fit(config: RARConfig, codes: int) -> None:
    if codes != config.vocab_size:
        raise InputError(
            f"the transformer has {config.vocab_size} codes, the tokenizer {codes}: hand over the "
            "tokenizer that the transformer was trained with"
        )
    if math.isqrt(config.num_tokens) ** 2 != config.num_tokens:
        raise InputError(f"the transformer's {config.num_tokens} tokens fill no square")
