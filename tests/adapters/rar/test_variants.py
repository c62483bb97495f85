from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from iarmem_adapters.rar.loading import configs
from iarmem_adapters.rar.tokenizer import MaskGITVQGAN, MaskGITVQGANConfig
from iarmem_adapters.rar.transformer import RARConfig, RARTransformer
from iarmem_adapters.rar.variants import variants
from iarmem_plugin.data.augmentation import TenCrops

TRANSFORMERS = ["rar_b", "rar_l", "rar_xl", "rar_xxl"]
RELEASED = [*TRANSFORMERS, "maskgit_vqgan"]


def build(name: str) -> nn.Module:
    with torch.device("meta"):
        if name == "maskgit_vqgan":
            return MaskGITVQGAN(MaskGITVQGANConfig())
        return RARTransformer(configs(name.replace("_", "-"))[0])


@pytest.mark.parametrize("name", RELEASED)
def test_entries_equal_the_published_ones_in_name_shape_dtype_and_order(
    name: str, manifest: Callable[[str], dict[str, Any]]
) -> None:
    expected = [(key, shape, dtype) for key, (shape, dtype) in manifest(name)["state_dict"].items()]
    actual = [
        (key, list(entry.shape), str(entry.dtype).removeprefix("torch."))
        for key, entry in build(name).state_dict().items()
    ]
    assert expected == actual


@pytest.mark.parametrize("name", RELEASED)
def test_parameters_and_buffers_are_the_published_ones(
    name: str, manifest: Callable[[str], dict[str, Any]]
) -> None:
    facts, network = manifest(name), build(name)
    assert facts["num_parameters"] == sum(entry.numel() for entry in network.parameters())
    assert facts["buffers_in_state_dict"] == [key for key, _ in network.named_buffers()] == []


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_variants_say_the_published_sizes(
    name: str, manifest: Callable[[str], dict[str, Any]]
) -> None:
    facts, variant = manifest(name), variants()[name.replace("_", "-")]
    assert (variant.blocks, variant.neurons, variant.parameters) == (
        facts["num_hidden_layers"],
        facts["intermediate_size"],
        facts["num_parameters"],
    )
    assert configs(variant.name)[0].heads == facts["num_attention_heads"]
    tokenizer = "maskgit-vqgan-imagenet-f16-256.bin"
    assert variant.files == {"weights": f"{name}.bin", "tokenizer": tokenizer}


@pytest.mark.parametrize(
    ("name", "guidance", "power", "temperature"),  # published with the checkpoints
    [
        ("rar-b", 16.0, 2.75, 1.0),
        ("rar-l", 15.5, 2.5, 1.02),
        ("rar-xl", 6.9, 1.5, 1.02),
        ("rar-xxl", 8.0, 1.2, 1.02),
    ],
)
def test_variants_are_sampled_as_published(
    name: str, guidance: float, power: float, temperature: float
) -> None:
    sampling = variants()[name].sampling
    assert (sampling.guidance, sampling.guidance_power) == (guidance, power)
    assert (sampling.temperature, sampling.greedy) == (temperature, False)
    assert (sampling.top_k, sampling.top_p) == (0, 0)


def test_weights_do_not_depend_on_the_layers_own_initialisation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def leave_undefined(module: nn.Module) -> None:
        for parameter in module.parameters():
            nn.init.constant_(parameter, float("nan"))

    for kind in (nn.Linear, nn.Embedding, nn.LayerNorm, nn.Conv2d, nn.GroupNorm):
        monkeypatch.setattr(kind, "reset_parameters", leave_undefined)
    network = RARTransformer(RARConfig(2, 8, 2, 16, num_tokens=4))
    tokenizer = MaskGITVQGAN(MaskGITVQGANConfig(ch=8, ch_mult=(1, 2)))
    for module in (network, tokenizer):
        assert all(entry.isfinite().all() for entry in module.parameters())


@pytest.mark.parametrize(
    ("key", "shape", "crc32", "first"),
    [
        ("embeddings.weight", (2026, 64), 0x4E3E6748, [0.863064, 0.103211, 1.543049]),
        ("lm_head.bias", (1024,), 0x37C6FEA5, [-0.322531, 0.144285, 0.002829]),
    ],
)
def test_formula_gives_the_weights_that_the_golden_vectors_were_made_with(
    key: str, shape: tuple[int, ...], crc32: int, first: list[float], fill: ModuleType
) -> None:
    value = fill.value_for(key, shape)
    # the first three are quoted to six decimals
    assert first == pytest.approx(np.ravel(value)[:3].tolist(), abs=1e-6)
    assert crc32 == fill.zlib.crc32(np.ascontiguousarray(value, "<f4").tobytes())


def test_rar_is_shown_ten_crops_of_256_pixels() -> None:
    released = [variant for variant in variants().values() if variant.organism is None]
    assert {variant.views for variant in released} == {TenCrops(crop=256)}
