"""Recognise the official VAR objects by their structure, and refuse what would go wrong.

Facts about the published code (arXiv 2404.02905) that this relies on are listed in
docs/own-models.md.
"""

from __future__ import annotations

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

from .block import NORM_EPS
from .sizes import transformer_sizes
from .transformer import VARConfig, VARTransformer, block_causal

PARTS = (
    *("blocks", "pos_start", "pos_1LC", "lvl_1L", "attn_bias_for_masking", "word_embed"),
    *("class_emb", "lvl_embed", "head_nm.ada_lin", "head"),
)
BLOCK_PARTS = ("attn.mat_qkv", "attn.zero_k_bias", "ffn.fc1", "ffn.act", "ffn.fc2")
DRIVEN = ("cond_drop_rate", "prog_si", "get_logits", "head_nm.ln_wo_grad", "shared_ada_lin")
BLOCK_DRIVEN = (
    "attn.caching",
    "attn.cached_k",
    "attn.cached_v",
    "ffn.fused_mlp_func",
    "ln_wo_grad",
)
TOKENIZER_PARTS = ("encoder", "decoder", "quantize", "quant_conv", "post_quant_conv")
TOKENIZER_DRIVEN = (
    *("encoder.down", "img_to_idxBl", "idxBl_to_img", "quantize.prog_si"),
    *("quantize.idxBl_to_var_input", "quantize.get_next_autoregressive_input"),
)
EPS = "build it with norm_eps=1e-6"
ACTIVATION = "the released models use nn.GELU(approximate='tanh')"
BUILDER = "build it with attn_l2_norm=True, as build_vae_var does"


def is_official(model: nn.Module) -> bool:
    """Tell whether a model has the parts of the official VAR transformer."""
    return (
        has_parts(model, PARTS)
        and isinstance(model.blocks, nn.ModuleList)
        and len(model.blocks) > 0
        and all(has_parts(block, BLOCK_PARTS) for block in model.blocks)
    )


def check_transformer(network: Any) -> VARConfig:
    """Return the sizes of an official transformer.

    Raises:
        InputError: it would not compute what the published models compute.
    """
    require_parts(network, DRIVEN)
    for index, block in enumerate(network.blocks):
        require_parts(block, BLOCK_DRIVEN, where=f"blocks.{index}")
        check_attribute(block, "attn.attn_l2_norm", True, BUILDER, where=f"blocks.{index}")
    config = read_sizes(transformer_sizes, network, "VAR")
    with undrawn():
        plain = VARTransformer(config).state_dict()
    compare_entries(network, plain, "VAR")
    mask = block_causal(network.lvl_1L[0].tolist())
    check_mask(network, "attn_bias_for_masking", mask, "load the released weights into it")
    check_dtype(network, "the official VAR", "call .float(), and use torch.autocast for speed")
    check_attribute(network, "patch_nums", config.patch_nums, "set it as lvl_1L says", tuple)
    check_attribute(network, "head_nm.ln_wo_grad.eps", NORM_EPS, EPS)
    for index, block in enumerate(network.blocks):
        where = f"blocks.{index}"
        check_attribute(block, "ln_wo_grad.eps", NORM_EPS, EPS, where=where)
        check_attribute(block, "ffn.act.approximate", "tanh", ACTIVATION, where=where)
    return config


def check_tokenizer(network: Any, config: VARConfig, given: nn.Module | None) -> Any:
    """Return the tokenizer that an official transformer uses.

    Args:
        network: the transformer.
        config: the transformer's sizes.
        given: tokenizer that the user handed over beside it, if any.

    Raises:
        InputError: it is not an official tokenizer, does not fit the transformer, or differs from
            the one given.
    """
    used = _own_tokenizer(network)
    parts = tuple(name for name, _ in used.named_children())
    if set(parts) != set(TOKENIZER_PARTS) or not has_parts(
        used, ("quantize.embedding", "quantize.quant_resi")
    ):
        raise InputError(
            f"vae_proxy[0] has the parts {', '.join(parts)}; expected VAR's tokenizer with "
            f"{', '.join(TOKENIZER_PARTS)}"
        )
    require_parts(used, TOKENIZER_DRIVEN, where="vae_proxy[0]")
    scales = "build both with the same patch_nums"
    check_attribute(used, "quantize.v_patch_nums", config.patch_nums, scales, tuple)
    check_attribute(used, "quantize.using_znorm", False, "build it with using_znorm=False")
    check_dtype(used, "VAR's tokenizer", "call .float() on it")
    codes = used.quantize.embedding.weight.shape
    if tuple(codes) != (config.vocab_size, config.code_width):
        raise InputError(
            f"the tokenizer has {codes[0]} codes of width {codes[1]}, the transformer "
            f"{config.vocab_size} of {config.code_width}: build both with the same V and Cvae"
        )
    if given is not None and given is not used:
        _check_same(used, given)
    check_devices(network, used)
    return used


def _own_tokenizer(network: Any) -> Any:
    if not all(_holds_one(network, name) for name in ("vae_proxy", "vae_quant_proxy")):
        raise InputError(
            "the transformer has no vae_proxy and vae_quant_proxy that hold its tokenizer: set "
            "var.vae_proxy = (vae,) and var.vae_quant_proxy = (vae.quantize,)"
        )
    used = network.vae_proxy[0]
    if used.quantize is not network.vae_quant_proxy[0]:
        raise InputError(
            "vae_quant_proxy[0] is not the quantiser of vae_proxy[0]: set both to one tokenizer's"
        )
    return used


def _holds_one(network: Any, name: str) -> bool:
    held = getattr(network, name, None)
    return isinstance(held, (tuple, list)) and len(held) == 1


def _check_same(used: nn.Module, given: nn.Module) -> None:
    ours, theirs = used.state_dict(), given.state_dict()
    for key in {**ours, **theirs}:
        if key == "quantize.ema_vocab_hit_SV":  # statistics of training
            continue
        if key not in ours or key not in theirs or not _equal(ours[key], theirs[key]):
            raise InputError(
                f"the tokenizer given differs from vae_proxy[0], which the transformer uses (first "
                f"in {key}): leave it out, or load its weights into vae_proxy[0]; a model from "
                "from_pretrained holds a tokenizer without trained weights"
            )


def _equal(first: torch.Tensor, second: torch.Tensor) -> bool:
    return first.shape == second.shape and torch.equal(first, second.to(first.device))
