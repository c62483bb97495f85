from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from iarmem_adapters.layers.group_norm import GroupNorm, quick_layout


def maps(height: int, mean: float) -> Tensor:
    """Maps whose channels, and whose upper and lower halves, have means of their own."""
    x = torch.randn(2, 64, height, 48, generator=torch.Generator().manual_seed(0))
    x[:, :, height // 2 :] += 3
    return x + torch.linspace(0, 1, 64)[:, None, None] + mean


@pytest.fixture
def norm() -> GroupNorm:
    norm = GroupNorm(64, silu=True)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(-1, 2, 64))
        norm.bias.copy_(torch.linspace(1, -1, 64))
    return norm


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("mean", [0.0, 10.0])
@pytest.mark.parametrize("height", [1, 5, 48])
def test_channels_last_keeps_the_digits_of_float64(
    height: int, mean: float, overwrite: bool, norm: GroupNorm
) -> None:
    x = maps(height, mean)
    with torch.no_grad():
        wide = x.double(), 32, norm.weight.double(), norm.bias.double(), 1e-6
        expected = F.silu(F.group_norm(*wide))
        actual = norm(quick_layout(x), overwrite=overwrite)
    # rounding of the values themselves, of up to 14 where the mean is 10
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=1e-5)


def test_maps_are_overwritten_only_where_allowed(norm: GroupNorm) -> None:
    with torch.no_grad():
        x = quick_layout(maps(48, 0))
        before = x.clone()
        kept = norm(x)
        assert torch.equal(before, x)
        assert norm(x, overwrite=True).data_ptr() == x.data_ptr()
    assert torch.equal(kept, x)


@pytest.mark.parametrize(
    ("channels", "side"), [(64, 48), (64, 12), (16, 32), (8, 5), (12, 3), (24, 13)]
)
def test_an_image_does_not_depend_on_the_others(channels: int, side: int) -> None:
    """Small images are handled together, but for those whose numbers SiLU would round otherwise."""
    norm = GroupNorm(channels, silu=True)
    x = torch.randn(7, channels, side, side, generator=torch.Generator().manual_seed(0)) * 3
    with torch.no_grad():
        x = quick_layout(x)
        assert torch.equal(norm(x), torch.cat([norm(one) for one in x.split(1)]))


def test_gradients_are_those_of_the_definition(norm: GroupNorm) -> None:
    x = maps(5, 0).requires_grad_()
    assert quick_layout(x).is_contiguous()
    norm(x, overwrite=True).square().sum().backward()
    actual = x.grad
    x.grad = None
    F.silu(F.group_norm(x, 32, norm.weight, norm.bias, 1e-6)).square().sum().backward()
    # float32 rounding
    torch.testing.assert_close(actual, x.grad)
