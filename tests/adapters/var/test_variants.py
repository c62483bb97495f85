from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from iarmem_adapters.var.loading import configs
from iarmem_adapters.var.tokenizer import MultiScaleVQVAE, VQVAEConfig
from iarmem_adapters.var.transformer import VARConfig, VARTransformer
from iarmem_adapters.var.variants import variants

SCALES_256 = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
RELEASED = ["var_d16", "var_d20", "var_d24", "var_d30", "var_d36_512", "vae_ch160v4096z32"]


def build(name: str, facts: dict[str, Any]) -> nn.Module:
    with torch.device("meta"):
        if name.startswith("vae"):
            return MultiScaleVQVAE(VQVAEConfig(SCALES_256))
        return VARTransformer(
            VARConfig(
                depth=facts["depth"],
                width=facts["embed_dim"],
                heads=facts["num_heads"],
                patch_nums=tuple(facts["patch_nums"]),
                shared_adaln=facts["shared_adaln"],
            )
        )


@pytest.mark.parametrize("name", RELEASED)
def test_entries_equal_the_published_ones_in_name_shape_dtype_and_order(
    name: str, manifest: Callable[[str], dict[str, Any]]
) -> None:
    facts = manifest(name)
    expected = [(key, shape, dtype) for key, (shape, dtype) in facts["state_dict"].items()]
    actual = [
        (key, list(entry.shape), str(entry.dtype).removeprefix("torch."))
        for key, entry in build(name, facts).state_dict().items()
    ]
    assert expected == actual


@pytest.mark.parametrize("name", RELEASED)
def test_parameters_and_buffers_are_the_published_ones(
    name: str, manifest: Callable[[str], dict[str, Any]]
) -> None:
    facts = manifest(name)
    network = build(name, facts)
    assert facts["num_parameters"] == sum(entry.numel() for entry in network.parameters())
    assert facts["buffers_in_state_dict"] == [key for key, _ in network.named_buffers()]


@pytest.mark.parametrize("name", RELEASED[:-1])
def test_variants_say_the_published_sizes(
    name: str, manifest: Callable[[str], dict[str, Any]]
) -> None:
    facts = manifest(name)
    variant = variants()[name.replace("_", "-").removesuffix("-512")]
    transformer, tokenizer = configs(variant.name)
    assert (variant.blocks, variant.parameters) == (facts["depth"], facts["num_parameters"])
    assert (transformer.heads, transformer.width) == (facts["num_heads"], facts["embed_dim"])
    assert variant.neurons == 4 * facts["embed_dim"]
    assert transformer.shared_adaln == facts["shared_adaln"]
    assert transformer.patch_nums == tokenizer.patch_nums == tuple(facts["patch_nums"])
    assert variant.resolution == (512 if name == "var_d36_512" else 256)
    weights = f"{variant.name.replace('-', '_')}.pth"
    assert variant.files == {"weights": weights, "tokenizer": "vae_ch160v4096z32.pth"}


@pytest.mark.parametrize("name", ["var-d16", "var-d20", "var-d24", "var-d30", "var-d36"])
def test_variants_are_sampled_as_published_for_fid(name: str) -> None:
    sampling = variants()[name].sampling
    assert (sampling.guidance, sampling.top_k, sampling.top_p) == (1.5, 900, 0.96)
    assert (sampling.guidance_power, sampling.temperature, sampling.greedy) == (0, 1, False)


def test_fixed_buffers_say_each_positions_scale_and_what_it_sees() -> None:
    network = VARTransformer(VARConfig(depth=1, width=8, heads=2, patch_nums=(1, 2)))
    hidden = -float("inf")
    assert network.lvl_1L.tolist() == [[0, 1, 1, 1, 1]]
    assert network.attn_bias_for_masking[0, 0].tolist() == [[0] + [hidden] * 4] + [[0] * 5] * 4
    assert not network.blocks[0].attn.zero_k_bias.any()


def test_weights_do_not_depend_on_the_layers_own_initialisation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def leave_undefined(module: nn.Module) -> None:
        for parameter in module.parameters():
            nn.init.constant_(parameter, float("nan"))

    for kind in (nn.Linear, nn.Embedding, nn.Conv2d, nn.GroupNorm):
        monkeypatch.setattr(kind, "reset_parameters", leave_undefined)
    for shared in (False, True):
        network = VARTransformer(VARConfig(2, 8, 2, (1, 2), shared_adaln=shared))
        assert all(entry.isfinite().all() for entry in network.parameters())
    tokenizer = MultiScaleVQVAE(VQVAEConfig((1, 2), ch=8, ch_mult=(1, 2)))
    assert all(entry.isfinite().all() for entry in tokenizer.parameters())


@pytest.mark.parametrize(
    ("key", "shape", "crc32", "first"),
    [
        ("head.weight", (4096, 1024), 0x72498171, [0.014479, -0.008449, -0.038347]),
        ("blocks.0.attn.scale_mul_1H11", (1, 16, 1, 1), 0x17B6C48E, [5.0, 1.892059, 1.238008]),
        ("quantize.embedding.weight", (4096, 32), 0x08C69A22, [-0.016707, -1.286407, -0.399443]),
        ("encoder.norm_out.weight", (512,), 0xE68902AA, [0.984056, 0.996740, 0.876194]),
    ],
)
def test_formula_gives_the_weights_that_the_golden_vectors_were_made_with(
    key: str, shape: tuple[int, ...], crc32: int, first: list[float], fill: ModuleType
) -> None:
    value = fill.value_for(key, shape)
    # the first three are quoted to six decimals
    assert first == pytest.approx(np.ravel(value)[:3].tolist(), abs=1e-6)
    assert crc32 == fill.zlib.crc32(np.ascontiguousarray(value, "<f4").tobytes())
