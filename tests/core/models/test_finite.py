"""NaN and infinity among weights are named; masks, whole numbers and nothing at all are fine."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from iarmem_plugin.errors import InputError
from iarmem_plugin.models.sound import check_finite, is_finite

KINDS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", [0, 517, 999])
def test_one_number_among_many_is_found(kind: torch.dtype, value: float, place: int) -> None:
    numbers = torch.full((1000,), -3.0, dtype=kind)
    assert is_finite(numbers)
    numbers[place] = value
    assert not is_finite(numbers)
    assert not is_finite(numbers.view(10, 100).T)
    assert is_finite(numbers, mask=True) == (value == -torch.inf)


def test_what_cannot_be_infinite_is_finite() -> None:
    for numbers in (
        torch.ones(3, dtype=torch.int64),
        torch.empty(0),
        torch.empty(2, device="meta"),
    ):
        assert is_finite(numbers)


class Part(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
        self.register_buffer("mean", torch.zeros(2))


def test_a_weight_or_buffer_is_named_and_a_mask_passes() -> None:
    part = Part()
    check_finite(part, "the model")
    part.mean[1] = torch.nan
    with pytest.raises(InputError, match="the model cannot be used: its weight 'mean' holds NaN"):
        check_finite(part, "the model")
    with torch.no_grad():
        part.inner.bias[0] = torch.inf
    with pytest.raises(InputError, match=r"'inner\.bias' holds NaN or infinity, and 1 more do"):
        check_finite(part, "the tokenizer")
