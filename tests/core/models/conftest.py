"""A tiny model with tokens and labels, some of its neurons, and its whole state."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from iarmem_plugin.interfaces import Condition, Sampling
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.testing.tiny import TinyAdapter

GREEDY = Sampling()
TOKENS = 1 + 4 + 16


@pytest.fixture
def model(adapter: TinyAdapter) -> ImageARModel:
    return ImageARModel(adapter)


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(16, (4, TOKENS), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def labels() -> torch.Tensor:
    return torch.tensor([0, 1, 4, 2])


@pytest.fixture
def condition(labels: torch.Tensor) -> Condition:
    return Condition.of(labels)


def some_neurons(fraction: float = 0.3) -> xr.DataArray:
    chosen = np.random.default_rng(0).random((3, 128)) < fraction
    return xr.DataArray(chosen, dims=("block", "neuron"))


def whole_block(block: int) -> xr.DataArray:
    chosen = np.zeros((3, 128), bool)
    chosen[block] = True
    return xr.DataArray(chosen, dims=("block", "neuron"))


def state_of(adapter: TinyAdapter) -> dict[str, object]:
    """Everything that a borrowed model must come back with."""
    return {
        "weights": {k: v.clone() for k, v in adapter.network.state_dict().items()},
        "modes": [module.training for module in adapter.network.modules()],
        "requires_grad": [p.requires_grad for p in adapter.network.parameters()],
        "hooks": [len(module._forward_hooks) for module in adapter.network.modules()],
        "attributes": [sorted(module.__dict__) for module in adapter.network.modules()],
        "rng": torch.get_rng_state(),
        "grad": torch.is_grad_enabled(),
    }


def assert_same_state(before: dict[str, object], after: dict[str, object]) -> None:
    for name in ("weights", "rng"):
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=0)
    for name in ("modes", "requires_grad", "hooks", "attributes", "grad"):
        assert after[name] == before[name], name
