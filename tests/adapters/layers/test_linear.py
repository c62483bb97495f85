from __future__ import annotations

import pytest
import torch
from torch import nn

from iarmem_adapters.layers.linear import FEW_ROWS, Linear

ROWS = [1, FEW_ROWS.start - 1, FEW_ROWS.start, FEW_ROWS.stop - 1, FEW_ROWS.stop]


@pytest.mark.parametrize("rows", ROWS)
def test_results_and_gradients_are_those_of_torch(rows: int) -> None:
    torch.manual_seed(0)
    layer, plain = Linear(24, 40), nn.Linear(24, 40)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(rows, 1, 24, requires_grad=True)
    expected, actual = plain(x), layer(x)
    assert actual.shape == expected.shape
    assert actual.is_contiguous()
    # float32 rounding of sums in another order
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)
    wanted = torch.autograd.grad(expected.square().sum(), [x, *plain.parameters()])
    found = torch.autograd.grad(actual.square().sum(), [x, *layer.parameters()])
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


@pytest.mark.parametrize("rows", ROWS)
def test_results_without_gradients_are_those_of_torch(rows: int) -> None:
    torch.manual_seed(0)
    layer, x = Linear(24, 40), torch.randn(rows, 1, 24)
    with torch.no_grad():
        expected, actual = nn.functional.linear(x, layer.weight, layer.bias), layer(x)
    assert actual.is_contiguous()
    # float32 rounding of sums in another order
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_torchs_own(dtype: torch.dtype) -> None:
    layer = Linear(24, 40).to(dtype)
    x = torch.randn(FEW_ROWS.start, 24).to(dtype)
    with torch.no_grad():
        assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))
