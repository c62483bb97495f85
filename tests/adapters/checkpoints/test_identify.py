"""A file is told by its entries, whichever installed family it is of."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch
from safetensors.torch import save_file
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


def code_in(message: str) -> str:
    return message[message.index("torch.save(") :]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"model": state, "ema": state},
        lambda state: {"model": prefixed(state, "module."), "ema": prefixed(state, "module.")},
        lambda state: {"a.b": {"c'd": state}, "e": [state]},
        lambda state: state | {"ema": state},
        lambda state: prefixed(state, "model.") | prefixed(state, "model_ema."),
    ],
)
def test_the_code_in_the_message_makes_a_file_that_loads(
    family: Any, files: tuple[Path, Path], states: tuple[State, State], wrap: Any
) -> None:
    Path("deep").mkdir()
    path = Path("deep/it's.pth")
    torch.save(wrap(states[0]), path)
    told = family.refusal(path)
    assert len(told) <= 400
    before = {one: one.read_bytes() for one in Path().rglob("*.pth")}
    exec(code_in(told), {"torch": torch})  # noqa: S102  # as a user would
    assert all(one.read_bytes() == content for one, content in before.items())
    (made,) = (one for one in Path().rglob("*.pth") if one not in before)
    assert family.equal(family.load(made).network, states[0])


def test_the_code_for_a_safetensors_file_works_too(
    family: Any, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    save_file(prefixed(states[0], "a.") | prefixed(states[0], "b."), "two.safetensors")
    told = family.refusal(Path("two.safetensors"))
    exec(code_in(told), {"torch": torch, "safetensors": safetensors})  # noqa: S102  # see above
    assert family.equal(family.load(Path("two-a.pth")).network, states[0])


def prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{name}": one.clone() for name, one in state.items()}


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
