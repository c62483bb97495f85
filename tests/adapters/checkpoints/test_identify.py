"""A file is told by its entries, whichever installed family it is of."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from iarmem_adapters.checkpoints import identify
from iarmem_adapters.checkpoints.identify import Signature

State = dict[str, Tensor]


def test_the_other_familys_files_are_recognised(
    family: Any, other: Any, files: tuple[Path, Path]
) -> None:
    theirs = [Path("theirs-0.pth"), Path("theirs-1.pth")]
    for build, sizes, path in zip(other.build, other.sizes, theirs, strict=True):
        torch.save(build(sizes).state_dict(), path)
    this, that = family.name.upper(), other.name.upper()
    assert family.refusal(theirs[0]) == (
        f"theirs-0.pth holds no {this} transformer: these are the weights of a {that} "
        f"transformer; name a {that} model, or give the {this} transformer's file"
    )
    told = family.refusal(files[0], theirs[1])
    assert f"holds no {this} tokenizer: these are the weights of a {that} tokenizer" in told


def test_swapped_files_are_noticed(family: Any, files: tuple[Path, Path]) -> None:
    told = family.refusal(files[1], files[0])
    this = family.name.upper()
    assert f"these are the weights of a {this} tokenizer; name them with --tokenizer" in told
    told = family.refusal(files[0], files[0])
    assert f"holds no {this} tokenizer: these are the weights of a {this} transformer" in told


def test_a_file_of_other_things_says_what_it_holds(family: Any, files: tuple[Path, Path]) -> None:
    torch.save({"conv1.weight": torch.zeros(1)}, files[0])
    assert family.refusal().endswith("but conv1.weight")
    torch.save({"epoch": 3}, files[0])
    assert family.refusal().endswith("it holds no tensors at all")
    torch.save(torch.zeros(3), files[0])
    assert family.refusal().endswith("it holds no tensors at all")


def test_several_copies_of_the_weights_are_not_chosen_among(
    family: Any, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    torch.save({"model": states[0], "ema": states[0]}, files[0])
    told = family.refusal()
    assert f"holds 2 of a {family.name.upper()} transformer, at model, ema: save the one" in told
    assert "torch.load('weights.pth', weights_only=True)['model']" in told


def test_the_files_of_any_installed_family_are_recognised(
    family: Any, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An adapter of another package need only have `signatures`; one without is passed over."""
    theirs = Signature("MINE transformer", "--weights", ("mine.weight",))
    adapters = {"mine": SimpleNamespace(signatures=lambda: (theirs,)), "silent": SimpleNamespace()}
    registry = SimpleNamespace(
        names=lambda kind: list(adapters), find=lambda kind, name: adapters[name]
    )
    monkeypatch.setattr(identify, "plugins", registry)
    torch.save({"mine.weight": torch.zeros(1)}, files[0])
    assert "these are the weights of a MINE transformer; name a MINE model" in family.refusal()
