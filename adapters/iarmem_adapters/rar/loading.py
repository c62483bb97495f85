"""Build RAR networks and load their weights strictly."""

from __future__ import annotations

from pathlib import Path

import torch

from iarmem_adapters.weights import fill_weights
from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Variant

from .adapter import RARAdapter
from .tokenizer import MaskGITVQGAN, MaskGITVQGANConfig
from .transformer import RARConfig, RARTransformer
from .variants import SIZES


def load(
    variant: Variant,
    weights: Path | None,
    tokenizer: Path | None,
    device: str,
    dtype: torch.dtype,
) -> RARAdapter:
    """Return a variant with its weights.

    Args:
        variant: which one.
        weights: the transformer's file.
        tokenizer: the VQGAN's file.
        device: where to put both networks.
        dtype: of the transformer; the tokenizer stays in float32.

    Raises:
        InputError: a file is not named.
        WeightsError: a file that is no state dict of this variant.
    """
    if weights is None or tokenizer is None:
        missing = "--weights" if weights is None else "--tokenizer"
        raise InputError(
            f"{variant.name} needs {missing}: download {' and '.join(variant.files)} from "
            f"{variant.source} and name them"
        )
    with torch.device("meta"):
        network = RARTransformer(config(variant.name))
        vqgan = MaskGITVQGAN(MaskGITVQGANConfig())
    fill_weights(network, weights, variant.name)
    fill_weights(vqgan, tokenizer, f"the tokenizer of {variant.name}")
    network.to(device=device, dtype=dtype)
    vqgan.to(device=device, dtype=torch.float32)
    return RARAdapter(network.eval(), vqgan.eval(), variant)


def config(name: str) -> RARConfig:
    """Return the sizes of a variant's transformer."""
    sizes = SIZES[name]
    return RARConfig(sizes.depth, sizes.width, sizes.heads, sizes.mlp_width)
