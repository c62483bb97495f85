"""Batches of activations as `capture` yields them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

GOLDEN = Path(__file__).parents[1] / "golden" / "reference_unitmem.npz"


def batch(scores: np.ndarray, images: Sequence[int] | np.ndarray) -> xr.DataArray:
    """Label scores (image, block, scale, neuron); image-first in memory, as captured."""
    coords = {
        "image": np.asarray(images),
        "block": range(scores.shape[1]),
        "scale": range(scores.shape[2]),
        "scale_name": ("scale", [f"scale {s}" for s in range(scores.shape[2])]),
        "neuron": range(scores.shape[3]),
    }
    data = xr.DataArray(scores, dims=("image", "block", "scale", "neuron"), coords=coords)
    return data.transpose("block", "scale", "neuron", "image")


@pytest.fixture
def make_batch() -> Callable[[np.ndarray, Sequence[int] | np.ndarray], xr.DataArray]:
    return batch


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN, allow_pickle=False) as file:
        return dict(file)
