"""Entries are loaded strictly: in the precision asked for, and none missing, unknown or odd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

State = dict[str, Tensor]


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_half_precision_files_load_in_any_precision(
    family: Any, files: tuple[Path, Path], states: tuple[State, State], stored: torch.dtype
) -> None:
    half = {k: v.to(stored) if v.is_floating_point() else v for k, v in states[0].items()}
    torch.save(half, files[0])
    for dtype in (torch.float32, torch.bfloat16):
        adapter = family.load(dtype=dtype)
        expected = {k: v.to(dtype) if v.is_floating_point() else v for k, v in half.items()}
        assert family.equal(adapter.network, expected)
        assert {entry.dtype for entry in adapter.tokenizer.parameters()} == {torch.float32}


def test_weights_stored_with_channels_last_are_laid_out_as_usual(
    family: Any, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    stored = {
        key: value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value
        for key, value in states[1].items()
    }
    torch.save(stored, files[1])
    assert all(entry.is_contiguous() for entry in family.load().tokenizer.parameters())


def test_missing_entries_are_named_up_to_five(
    family: Any, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    gone = [key for key in states[0] if key.startswith("blocks.1.attn.")]
    torch.save({key: value for key, value in states[0].items() if key not in gone}, files[0])
    for name in (family.released[0], family.name):
        named = f"weights.pth is not {name}: it lacks {', '.join(gone[:5])}"
        assert family.refusal(name=name) == f"{named} and {len(gone) - 5} more"


def test_extra_entries_are_named(
    family: Any, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    torch.save(states[0] | {"control.weight": torch.zeros(1)}, files[0])
    assert family.refusal().endswith(f"is not {family.released[0]}: it has unknown control.weight")


def test_entries_of_other_sizes_are_named(
    family: Any, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    key = next(key for key in states[0] if key.endswith("0.attn.proj.weight"))
    torch.save(states[0] | {key: torch.zeros(7, 32)}, files[0])
    assert family.refusal().endswith(f"it has other sizes: {key} (7, 32) instead of (32, 32)")


def test_quantised_entries_are_refused(
    family: Any, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    key = next(key for key in states[0] if key.endswith("0.attn.proj.weight"))
    torch.save(states[0] | {key: torch.zeros(32, 32, dtype=torch.int8)}, files[0])
    assert f"as if it were quantised: {key} (torch.int8)" in family.refusal()
    torch.save(states[0] | {key: states[0][key].to(torch.float8_e4m3fn)}, files[0])
    assert f"as if it were quantised: {key} (torch.float8_e4m3fn)" in family.refusal()


def test_entries_without_plain_numbers_are_refused(
    family: Any, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    key = next(key for key in states[0] if key.endswith("0.attn.proj.weight"))
    for odd in (states[0][key].to_sparse(), states[0][key].to("meta")):
        torch.save(states[0] | {key: odd}, files[0])
        assert f"being sparse or without values, in {key}" in family.refusal()


def test_what_is_missing_and_what_is_unknown_is_shown_together(
    family: Any, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    other = {key.replace("1.attn.", "1.attention."): one for key, one in states[0].items()}
    torch.save(other, files[0])
    for name in (family.released[0], family.name):
        told = family.refusal(name=name)
        assert "it lacks blocks.1.attn." in told
        assert " and has unknown blocks.1.attention." in told
        assert len(told) <= 400


def test_an_entry_under_another_name_is_shown_beside_the_one_that_is_missing(
    family: Any, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    torch.save({key.replace("0.", "0.wrapped."): one for key, one in states[0].items()}, files[0])
    told = family.refusal()
    assert "it lacks blocks.0." in told
    assert ", but has " in told
    assert "blocks.0.wrapped." in told


def test_weights_beside_unmerged_adapters_are_told(
    family: Any, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    key = next(key for key in states[0] if key.endswith("0.attn.proj.weight"))
    stem = key.removesuffix(".weight")
    lora = {f"{stem}.lora_{one}.default.weight": torch.zeros(1) for one in "AB"}
    base = {f"{stem}.base_layer.weight": states[0][key]}
    rest = {name: one for name, one in states[0].items() if name != key}
    whole = {f"base_model.model.{name}": one for name, one in (rest | base | lora).items()}
    for given in (whole, rest | base | lora, lora):
        torch.save(given, files[0])
        assert "merge the adapters first" in family.refusal()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(
    family: Any, files: tuple[Path, Path], states: tuple[State, State], value: float
) -> None:
    head = {"var": "head.bias", "rar": "lm_head.bias"}[family.name]
    for state, path, key in zip(states, files, (head, "decoder.conv_in.bias"), strict=True):
        good, spoilt = path.read_bytes(), state[key].clone()
        spoilt[-1] = value
        torch.save(state | {key: spoilt}, path)
        assert f"{key} holds NaN or infinity: the file is damaged" in family.refusal()
        path.write_bytes(good)


def test_weights_that_do_not_fit_the_precision_are_refused(
    family: Any, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    key = next(key for key in states[0] if key.endswith("0.attn.proj.weight"))
    torch.save(states[0] | {key: states[0][key] + 1e6}, files[0])
    told = family.refusal(dtype=torch.float16)
    assert f"{key} holds NaN or infinity in torch.float16: load it as float32 or bfloat16" in told
    family.load(dtype=torch.bfloat16)
