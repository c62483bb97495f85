"""Build RAR networks and load their weights strictly."""

from __future__ import annotations

from pathlib import Path

import torch

from iarmem_adapters import organisms
from iarmem_adapters.checkpoints.files import file_facts, read_weights
from iarmem_adapters.checkpoints.filling import fill
from iarmem_adapters.checkpoints.identify import pick
from iarmem_adapters.checkpoints.sizes import check_codes, check_sizes, infer
from iarmem_plugin.models.hub import named_files

from .adapter import RARAdapter
from .sizes import TOKENIZER, TRANSFORMER, tokenizer_sizes, transformer_sizes
from .tokenizer import MaskGITVQGAN, MaskGITVQGANConfig
from .transformer import RARConfig, RARTransformer
from .variants import SIZES, variants

FAMILY = "rar"


def load(
    name: str,
    weights: Path | None,
    tokenizer: Path | None,
    device: str,
    dtype: torch.dtype,
    *,
    sizes: tuple[RARConfig, MaskGITVQGANConfig] | None = None,
) -> RARAdapter:
    """Return a model with its weights.

    Args:
        name: of a variant; or ``"rar"``, which takes weights of any size.
        weights: the transformer's file; an organism needs none.
        tokenizer: the VQGAN's file; an organism needs none.
        device: where to put both networks.
        dtype: of the transformer; the tokenizer stays in float32.
        sizes: what the weights must have; if not given, a variant's own, and for ``"rar"``
            those that their shapes tell.

    Raises:
        InputError: a file is not named, or named for an organism, or is not there; or the
            tokens of an image fill no square.
        WeightsError: a file that holds no such weights.
    """
    variant = variants().get(name)
    organism = variant is not None and variant.organism is not None
    bundled = organisms.weight_files(FAMILY) if organism else None
    files = named_files(name, variant, weights, tokenizer, bundled=bundled)
    if sizes is None and variant is not None:
        sizes = configs(name)
    network_sizes, vqgan_sizes = (None, None) if sizes is None else sizes
    network, place = _transformer(files[0], name, network_sizes, device, dtype)
    vqgan, vqgan_place = _tokenizer(files[1], name, network.config, vqgan_sizes, device)
    if variant is None:
        adapter = RARAdapter.from_model(network, vqgan)
    else:
        adapter = RARAdapter(network, vqgan, variant)
    adapter.files = {
        "transformer": file_facts(files[0], place),
        "tokenizer": file_facts(files[1], vqgan_place),
    }
    return adapter


def configs(name: str) -> tuple[RARConfig, MaskGITVQGANConfig]:
    """Return the sizes of a variant's transformer and tokenizer."""
    if name not in SIZES:
        return organisms.rar_configs()
    sizes = SIZES[name]
    network = RARConfig(sizes.depth, sizes.width, sizes.heads, sizes.mlp_width)
    return network, MaskGITVQGANConfig()


def _transformer(
    path: Path, name: str, asked: RARConfig | None, device: str, dtype: torch.dtype
) -> tuple[RARTransformer, str]:
    place, state = pick(read_weights(path), TRANSFORMER)
    config = infer(transformer_sizes, state, path, name)
    if asked is not None:
        released = {known: configs(known)[0] for known in variants()}
        check_sizes(config, asked, path=path, name=name, family=FAMILY, released=released)
    with torch.device("meta"):
        network = RARTransformer(config)
    fill(network, state, path=path, what=name, device=device, dtype=dtype)
    return network.eval(), place


def _tokenizer(
    path: Path, name: str, network: RARConfig, asked: MaskGITVQGANConfig | None, device: str
) -> tuple[MaskGITVQGAN, str]:
    what = f"the tokenizer of {name}"
    place, state = pick(read_weights(path), TOKENIZER)
    found = infer(tokenizer_sizes, state, path, what)
    check_codes(found, network, ("vocab_size",), path=path, what=what)
    with torch.device("meta"):
        vqgan = MaskGITVQGAN(found if asked is None else asked)
    fill(vqgan, state, path=path, what=what, device=device, dtype=torch.float32)
    return vqgan.eval(), place
