"""Streaming UnitMem against a bare numpy loop of running maximum and sum.

Reported, not asserted: ``pytest tests/benchmarks/test_metric_speed.py --benchmark-enable -s``.
At the size of VAR-d16, over 2016 images (63 batches), batch by batch in turn.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
import xarray as xr

from iarmem_metrics.unitmem import UnitMem

DIMS = ("image", "block", "scale", "neuron")
VAR_D16 = (16, 10, 4096)  # blocks, scales, neurons
BATCH = 32


def stream(images: int, shape: tuple[int, int, int]) -> Iterator[xr.DataArray]:
    """Yield batches as `capture` does, image-first in memory.

    The values are those of 64 images, dealt to other neurons in every batch: a neuron then meets
    new maxima as often as with fresh values.
    """
    random = np.random.default_rng(0)
    values = np.abs(random.standard_normal((64, int(np.prod(shape))), np.float32))
    for low in range(0, images, BATCH):
        dealt = np.roll(values[low % 64 :][:BATCH], int(random.integers(values.shape[1])), axis=1)
        coords = {"image": np.arange(low, low + BATCH)}
        data = xr.DataArray(dealt.reshape(-1, *shape), dims=DIMS, coords=coords)
        yield data.transpose("block", "scale", "neuron", "image")


class Bare:
    """The loop that any streaming must do at least."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.largest, self.total = np.full(shape, -np.inf, np.float32), np.zeros(shape)

    def update(self, activations: xr.DataArray) -> None:
        for row in activations.transpose(*DIMS).to_numpy():
            np.maximum(self.largest, row, out=self.largest)
            np.add(self.total, row, out=self.total)


def seconds(metric: Bare | UnitMem, batch: xr.DataArray) -> float:
    start = time.process_time()
    metric.update(batch)
    return time.process_time() - start


def one_ratio(images: int, shape: tuple[int, int, int]) -> float:
    bare, unitmem = Bare(shape), UnitMem()
    times = [(seconds(unitmem, batch), seconds(bare, batch)) for batch in stream(images, shape)]
    spent, bound = np.sum(times, axis=0)
    assert np.array_equal(unitmem.state()["total"], bare.total)  # both did the work
    return float(spent / bound)


def test_streaming_costs_little_more_than_a_bare_loop(request: pytest.FixtureRequest) -> None:
    full = request.config.getoption("--benchmark-enable")
    images, shape, rounds = (2016, VAR_D16, 15) if full else (64, (1, 2, 64), 1)
    ratios = sorted(one_ratio(images, shape) for _ in range(rounds))
    low, middle, high = ratios[rounds // 4], ratios[rounds // 2], ratios[-1 - rounds // 4]
    print(f"\nUnitMem / bare loop: {middle:.2f} (quartiles {low:.2f} to {high:.2f})")
    assert middle > 0
