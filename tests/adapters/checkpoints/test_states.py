"""Weights are found wherever they lie in a file, under whatever names wrappers gave them."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from iarmem_adapters.checkpoints.states import find_states
from iarmem_plugin.errors import WeightsError

State = dict[str, Tensor]
HERE = Path("file.pth")


def renamed(state: State, old: str, new: str) -> State:
    return {name.replace(old, new): tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("blocks.0.", "blocks.0._orig_mod."),
        ("blocks.", "module.blocks."),
        (".attn.", "._checkpoint_wrapped_module.attn."),
        ("blocks.1.", "blocks.1._fsdp_wrapped_module._checkpoint_wrapped_module."),
        (".fc1.", ".fc1._orig_mod."),
    ],
)
def test_wrappers_names_are_taken_off_wherever_they_stand(
    family: Any, files: tuple[Path, Path], states: tuple[State, State], old: str, new: str
) -> None:
    torch.save({"model": renamed(states[0], old, new)}, files[0])
    adapter = family.load()
    assert family.equal(adapter.network, states[0])
    assert adapter.files["transformer"]["place"] == "model"


def test_a_lightning_checkpoint_gives_both_networks(
    family: Any, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    whole = {f"model._orig_mod.{name}": one for name, one in states[0].items()}
    whole |= {f"vae.{name}": one for name, one in states[1].items()}
    whole["criterion.weight"] = torch.ones(2)
    torch.save({"state_dict": OrderedDict(whole), "hyper_parameters": {"lr": 0.1}}, files[0])
    adapter = family.load(files[0], files[0])
    assert family.equal(adapter.network, states[0])
    assert family.equal(adapter.tokenizer, states[1])
    assert adapter.files["transformer"]["place"] == "state_dict.model"
    assert adapter.files["tokenizer"]["place"] == "state_dict.vae"


def test_a_list_of_models_is_looked_into(
    family: Any, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    torch.save({"models": [states[0], {"lr": 0.1}]}, files[0])
    assert family.load().files["transformer"]["place"] == "models.0"


def test_names_that_would_become_one_are_left_alone() -> None:
    both = {"module.a": torch.zeros(1), "a": torch.ones(1)}
    (held,) = find_states(both, HERE)
    assert held.state == both
    assert held.prefix == ""


def test_what_holds_itself_is_refused_at_once(family: Any, files: tuple[Path, Path]) -> None:
    loop: dict[str, Any] = {"a": torch.zeros(1)}
    loop["self"] = {"again": [loop]}
    torch.save({"model": loop}, files[0])
    assert "a dictionary in it holds itself; save its state dict alone" in family.refusal()


def test_what_is_nested_without_end_is_refused_at_once() -> None:
    deep: dict[str, Any] = {"a": torch.zeros(1)}
    for _ in range(10_000):
        deep = {"in": deep}
    with pytest.raises(WeightsError, match="nested more than 100 deep"):
        find_states(deep, HERE)


def test_each_object_is_looked_into_once() -> None:
    """2 ** 60 paths lead to the innermost of these."""
    inner: dict[str, Any] = {"a": torch.zeros(1)}
    for _ in range(60):
        inner = {"one": inner, "two": inner}
    found = find_states(inner, HERE)
    assert {held.place.rpartition(".")[2] for held in found} == {"one", "two"}
    assert len(found) == 2
