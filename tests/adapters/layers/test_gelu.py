from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from iarmem_adapters.layers.gelu import CHUNK, TanhGELU


@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, CHUNK // 2), (3, CHUNK // 2 + 1)])
def test_it_is_the_formula_and_leaves_its_input(shape: tuple[int, ...]) -> None:
    x = 4 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    with torch.no_grad():
        actual = TanhGELU()(x)
    # a few roundings of float32 of values below 20
    expected = F.gelu(x.double(), approximate="tanh").float()
    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-6)
    assert torch.equal(before, x)


def test_large_numbers_stay_or_vanish() -> None:
    with torch.no_grad():
        assert TanhGELU()(torch.tensor([1e4, -1e4, 0.0])).tolist() == [1e4, 0.0, 0.0]


def test_gradients_are_those_of_torch() -> None:
    x = torch.linspace(-3, 3, 9, requires_grad=True)
    wanted = torch.autograd.grad(F.gelu(x, approximate="tanh").sum(), x)
    assert torch.equal(torch.autograd.grad(TanhGELU()(x).sum(), x)[0], wanted[0])
