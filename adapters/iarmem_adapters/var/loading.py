"""Build VAR networks and load their weights strictly."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from iarmem_adapters import organisms
from iarmem_plugin.errors import InputError, WeightsError
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
        weights, tokenizer = organisms.weight_files()
    if weights is None or tokenizer is None:
        missing = "--weights" if weights is None else "--tokenizer"
        raise InputError(
            f"{variant.name} needs {missing}: download {' and '.join(variant.files)} from "
            f"{variant.source} and name them"
        )
    with torch.device("meta"):
        network, vqvae = VARTransformer(network_config), MultiScaleVQVAE(tokenizer_config)
    _fill(network, weights, variant.name)
    _fill(vqvae, tokenizer, f"the tokenizer of {variant.name}")
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


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict without executing anything it contains.

    Raises:
        InputError: there is no such file.
        WeightsError: the file holds something else.
    """
    if not path.is_file():
        raise InputError(f"there is no weight file {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, SafetensorError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise WeightsError(f"{path} is not a readable weight file: {reason}") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path} is not a flat state dict of tensors")
    return state


def _fill(module: nn.Module, path: Path, what: str) -> None:
    state = read_weights(path)
    expected = module.state_dict()
    _compare(expected, state, path, what)
    for key, tensor in state.items():
        if tensor.is_floating_point():
            state[key] = tensor.float()
    module.load_state_dict(state, strict=True, assign=True)


def _compare(expected: dict[str, Tensor], state: dict[str, Tensor], path: Path, what: str) -> None:
    missing = [key for key in expected if key not in state]
    extra = [key for key in state if key not in expected]
    differing = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in expected
        if key in state and state[key].shape != expected[key].shape
    ]
    for kind, keys in (("lacks", missing), ("has unknown", extra), ("has other sizes:", differing)):
        if keys:
            more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
            raise WeightsError(f"{path} is not {what}: it {kind} {', '.join(keys[:5])}{more}")
