"""The sizes of networks are read from their weights, and compared with those asked for."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from iarmem_adapters.rar.transformer import RARConfig
from iarmem_adapters.var.adapter import VARAdapter
from iarmem_adapters.var.tokenizer import MultiScaleVQVAE, VQVAEConfig
from iarmem_adapters.var.transformer import VARConfig, VARTransformer

State = dict[str, Tensor]


def test_weights_of_any_size_load_by_the_familys_name(
    family: Any, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    adapter: Any = family.load(name=family.name)
    assert (adapter.network.config, adapter.tokenizer.config) == family.sizes
    assert family.equal(adapter.network, states[0])
    variant, sizes = adapter.variant, family.sizes[0]
    assert (variant.name, variant.family) == (f"{family.name}-2x32", family.name)
    assert (variant.blocks, variant.num_classes) == (sizes.depth, sizes.num_classes)
    parameters = list(adapter.network.parameters())
    assert variant.parameters == sum(entry.numel() for entry in parameters)
    assert variant.resolution == 4  # 2x2 tokens at the finest, each 2x2 pixels


def test_sizes_can_be_given_and_are_then_checked(
    family: Any, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    adapter = family.load(name=family.name, sizes=family.sizes)
    assert family.equal(adapter.network, states[0])
    told = family.refusal(name=family.name, sizes=(family.larger, family.sizes[1]))
    assert "depth 2 instead of 3, heads 2 instead of 4" in told


def test_the_sizes_of_a_var_with_shared_adaptive_norms_and_other_scales_are_found(
    fill: ModuleType, tmp_path: Path
) -> None:
    sizes = VARConfig(1, 24, 3, (1, 3, 4), 7, 12, 5, shared_adaln=True)
    codes = VQVAEConfig((1, 2), ch=32, ch_mult=(1, 1, 3), vocab_size=12, code_width=5)
    network, tokenizer = VARTransformer(sizes), MultiScaleVQVAE(codes)
    for module, name in ((network, "weights.pth"), (tokenizer, "tokenizer.pth")):
        torch.save(fill.fill_state_dict(module).state_dict(), tmp_path / name)
    adapter = VARAdapter.load(
        "var",
        files={
            "weights": tmp_path / "weights.pth",
            "tokenizer": tmp_path / "tokenizer.pth",
        },
        device="cpu",
        dtype=torch.float32,
    )
    assert adapter.network.config == sizes
    # the tokenizer's file does not tell its scales: they are the transformer's
    assert adapter.tokenizer.config == VQVAEConfig(
        (1, 3, 4), ch=32, ch_mult=(1, 1, 3), vocab_size=12, code_width=5
    )
    assert adapter.variant.resolution == 16


def test_weights_of_another_released_size_are_named(family: Any, files: tuple[Path, Path]) -> None:
    torch.save(family.build[0](family.larger).state_dict(), files[0])
    asked, other = family.released
    assert family.refusal() == (
        f"weights.pth holds the weights of {other}, and {asked} was asked for: "
        f"name the model {other}"
    )


def test_weights_of_no_released_size_are_described(family: Any, files: tuple[Path, Path]) -> None:
    sizes = {"var": VARConfig(4, 32, 2, (1, 2), 9, 8, 4), "rar": RARConfig(4, 32, 2, 48, 4, 16, 9)}
    torch.save(family.build[0](sizes[family.name]).state_dict(), files[0])
    told = family.refusal()
    assert f"is not {family.released[0]}, nor of any released size: depth 4 instead of 2" in told
    assert told.endswith(f"to load it as it is, name the model {family.name!r}")


def test_a_tokenizer_of_other_codes_is_refused(
    family: Any, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    codes = states[1] | {"quantize.embedding.weight": torch.zeros(32, 4)}
    torch.save(codes, files[1])
    wanted = family.sizes[0].vocab_size
    for name in (family.released[0], family.name):
        told = family.refusal(name=name)
        assert f"is not the tokenizer of {name}: it has vocab_size 32 instead of {wanted}" in told


def test_an_entry_that_tells_the_size_may_be_the_missing_one(
    family: Any, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    gone = {"var": "pos_1LC", "rar": "lm_head.weight"}[family.name]
    del states[0][gone]
    torch.save(states[0], files[0])
    assert family.refusal().endswith(f"is not {family.released[0]}: it lacks {gone}")


def test_shapes_that_no_model_has_are_refused(
    family: Any, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    key, value, problem = {
        "var": ("lvl_1L", torch.tensor([[0, 1, 1, 1]]), "no squares"),
        "rar": ("embeddings.weight", torch.zeros(3, 32), "classes"),
    }[family.name]
    torch.save(states[0] | {key: value}, files[0])
    assert problem in family.refusal(name=family.name)
    torch.save(states[0] | {key: torch.zeros(())}, files[0])
    family.refusal(name=family.name)
    key = {"var": "pos_1LC", "rar": "cls_token"}[family.name]
    torch.save(states[0] | {key: states[0][key].flatten()}, files[0])
    assert "an entry has too few dimensions" in family.refusal(name=family.name)
