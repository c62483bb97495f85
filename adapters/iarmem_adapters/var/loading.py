"""Build VAR networks and load their weights strictly."""

from __future__ import annotations

from pathlib import Path

import torch

from iarmem_adapters import organisms
from iarmem_adapters.weights import fill_weights
from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Variant

from .adapter import VARAdapter
from .tokenizer import MultiScaleVQVAE, VQVAEConfig
from .transformer import VARConfig, VARTransformer
from .variants import SIZES


def load(
    variant: Variant,
    weights: Path | None,
    tokenizer: Path | None,
    device: str,
    dtype: torch.dtype,
) -> VARAdapter:
    """Return a variant with its weights.

    Args:
        variant: which one.
        weights: the transformer's file; an organism needs none.
        tokenizer: the VQVAE's file; an organism needs none.
        device: where to put both networks.
        dtype: of the transformer; the tokenizer stays in float32.

    Raises:
        InputError: a file is not named, or named for an organism.
        WeightsError: a file that is no state dict of this variant.
    """
    network_config, tokenizer_config = configs(variant.name)
    if variant.organism is not None:
        if weights is not None or tokenizer is not None:
            raise InputError(f"{variant.name} is bundled: leave out --weights and --tokenizer")
        weights, tokenizer = organisms.weight_files("var")
    if weights is None or tokenizer is None:
        missing = "--weights" if weights is None else "--tokenizer"
        raise InputError(
            f"{variant.name} needs {missing}: download {' and '.join(variant.files)} from "
            f"{variant.source} and name them"
        )
    with torch.device("meta"):
        network, vqvae = VARTransformer(network_config), MultiScaleVQVAE(tokenizer_config)
    fill_weights(network, weights, variant.name)
    fill_weights(vqvae, tokenizer, f"the tokenizer of {variant.name}")
    network.to(device=device, dtype=dtype)
    vqvae.to(device=device, dtype=torch.float32)
    return VARAdapter(network.eval(), vqvae.eval(), variant)


def configs(name: str) -> tuple[VARConfig, VQVAEConfig]:
    """Return the sizes of a variant's transformer and tokenizer."""
    if name not in SIZES:
        return organisms.var_configs()
    sizes = SIZES[name]
    network = VARConfig(
        sizes.depth,
        64 * sizes.depth,
        sizes.depth,
        sizes.patch_nums,
        shared_adaln=sizes.shared_adaln,
    )
    return network, VQVAEConfig(sizes.patch_nums)
