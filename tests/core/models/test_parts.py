"""What a model object holds, and what was added to it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from iarmem_plugin.models.sound import derived_advice, known_part


def is_linear(part: nn.Module) -> bool:
    return isinstance(part, nn.Linear)


class Holder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.nets = nn.ModuleList([nn.ReLU(), nn.Linear(1, 1)])


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (nn.Sequential(nn.ReLU(), nn.Linear(1, 1)), "[1]"),
        (Holder(), ".nets[1]"),
        (SimpleNamespace(name="x", generator=nn.Linear(1, 1)), ".generator"),
        (SimpleNamespace(inner=Holder()), ".inner.nets[1]"),
        (nn.ReLU(), None),
        ({"a": nn.Linear(1, 1)}, None),
        ("text", None),
    ],
)
def test_the_attribute_that_holds_a_model_is_written_as_code(
    model: object, expected: str | None
) -> None:
    found = known_part(model, is_linear)
    assert found == expected
    if found is not None:
        assert is_linear(eval(f"model{found}", {"model": model}))  # noqa: S307  # as a user would


def test_each_way_of_adding_weights_has_its_cure() -> None:
    plain = nn.Linear(2, 2)
    assert derived_advice(plain.state_dict()) == ""
    assert "merge the adapters first" in derived_advice(["a.lora_A.default.weight"])
    assert "merge the adapters first" in derived_advice(["a.base_layer.bias"])
    weighted = parametrizations.weight_norm(nn.Linear(2, 2))
    assert "remove the parametrizations first" in derived_advice(weighted.state_dict())
    pruned = prune.identity(nn.Linear(2, 2), "weight")
    assert "remove the pruning first" in derived_advice(
        name for name, _ in nn.Sequential(pruned).named_parameters()
    )
    assert torch.is_tensor(pruned.weight)
