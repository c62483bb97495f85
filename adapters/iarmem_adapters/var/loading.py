"""Build VAR networks and load their weights strictly."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from iarmem_adapters import organisms
from iarmem_adapters.checkpoints.files import State, file_facts, read_weights
from iarmem_adapters.checkpoints.filling import fill
from iarmem_adapters.checkpoints.identify import pick
from iarmem_adapters.checkpoints.sizes import check_codes, check_sizes, infer
from iarmem_plugin.models.hub import named_files

from .adapter import VARAdapter
from .sizes import TOKENIZER, TRANSFORMER, tokenizer_sizes, transformer_sizes
from .tokenizer import MultiScaleVQVAE, VQVAEConfig
from .transformer import VARConfig, VARTransformer
from .variants import SIZES, variants

FAMILY = "var"
USAGE = "quantize.ema_vocab_hit_SV"


def load(
    name: str,
    weights: Path | None,
    tokenizer: Path | None,
    device: str,
    dtype: torch.dtype,
    *,
    sizes: tuple[VARConfig, VQVAEConfig] | None = None,
) -> VARAdapter:
    """Return a model with its weights.

    Args:
        name: of a variant; or ``"var"``, which takes weights of any size.
        weights: the transformer's file; an organism needs none.
        tokenizer: the VQVAE's file; an organism needs none.
        device: where to put both networks.
        dtype: of the transformer; the tokenizer stays in float32.
        sizes: what the weights must have; if not given, a variant's own, and for ``"var"``
            those that their shapes tell.

    Raises:
        InputError: a file is not named, or named for an organism, or is not there.
        WeightsError: a file that holds no such weights.
    """
    variant = variants().get(name)
    organism = variant is not None and variant.organism is not None
    bundled = organisms.weight_files(FAMILY) if organism else None
    files = named_files(name, variant, weights, tokenizer, bundled=bundled)
    if sizes is None and variant is not None:
        sizes = configs(name)
    network_sizes, vqvae_sizes = (None, None) if sizes is None else sizes
    network, place = _transformer(files[0], name, network_sizes, device, dtype)
    vqvae, vqvae_place = _tokenizer(files[1], name, network.config, vqvae_sizes, device)
    if variant is None:
        adapter = VARAdapter.from_model(network, vqvae)
    else:
        adapter = VARAdapter(network, vqvae, variant)
    adapter.files = {
        "transformer": file_facts(files[0], place),
        "tokenizer": file_facts(files[1], vqvae_place),
    }
    return adapter


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


def _transformer(
    path: Path, name: str, asked: VARConfig | None, device: str, dtype: torch.dtype
) -> tuple[VARTransformer, str]:
    place, state = pick(read_weights(path), TRANSFORMER)
    config = infer(transformer_sizes, state, path, name)
    if asked is not None:
        released = {known: configs(known)[0] for known in variants()}
        check_sizes(config, asked, path=path, name=name, family=FAMILY, released=released)
    with torch.device("meta"):
        network = VARTransformer(config)
    fill(network, state, path=path, what=name, device=device, dtype=dtype)
    return network.eval(), place


def _tokenizer(
    path: Path, name: str, network: VARConfig, asked: VQVAEConfig | None, device: str
) -> tuple[MultiScaleVQVAE, str]:
    what = f"the tokenizer of {name}"
    place, state = pick(read_weights(path), TOKENIZER)
    found = infer(partial(tokenizer_sizes, patch_nums=network.patch_nums), state, path, what)
    check_codes(found, network, ("vocab_size", "code_width"), path=path, what=what)
    config = found if asked is None else asked
    _fit_usage(state, config)
    with torch.device("meta"):
        vqvae = MultiScaleVQVAE(config)
    fill(vqvae, state, path=path, what=what, device=device, dtype=torch.float32)
    return vqvae.eval(), place


def _fit_usage(state: State, config: VQVAEConfig) -> None:
    """Forget how often codes were used at another number of scales; no result depends on it."""
    used = state.get(USAGE)
    if used is not None and used.dim() == 2 and used.shape[0] != len(config.patch_nums):
        state[USAGE] = torch.zeros(len(config.patch_nums), used.shape[1])
