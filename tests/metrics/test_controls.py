"""The two controls: mean activation and random scores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from iarmem_metrics.mean_activation import MeanActivation
from iarmem_metrics.random_score import RandomScore
from iarmem_plugin.errors import InputError, NonFiniteActivationError
from iarmem_plugin.interfaces import Metric

Batch = Callable[..., xr.DataArray]
METRICS = pytest.mark.parametrize("metric", [MeanActivation, RandomScore])


def activations(images: int) -> np.ndarray:
    return np.random.default_rng(0).random((images, 2, 3, 5)).astype(np.float32)


def test_mean_activation_is_the_mean_over_images(make_batch: Batch) -> None:
    values = activations(9)
    metric = MeanActivation()
    metric.update(make_batch(values[:4], range(4)))
    metric.update(make_batch(values[4:], range(4, 9)))
    expected = values.mean(0, dtype=np.float64)
    assert np.abs(metric.compute().to_numpy() - expected).max() <= 1e-15  # float64 rounding


def test_a_neuron_that_is_never_active_is_not_valid(make_batch: Batch) -> None:
    values = activations(3)
    values[:, 1, 2, 4] = 0
    metric = MeanActivation()
    metric.update(make_batch(values, range(3)))
    valid = metric.compute()["valid"]
    assert not valid[1, 2, 4].item()
    assert valid.sum().item() == valid.size - 1


def test_mean_activation_names_a_value_that_is_not_finite(make_batch: Batch) -> None:
    values = activations(2)
    values[1, 0, 2, 3] = np.nan
    with pytest.raises(NonFiniteActivationError, match=r"block 0, scale scale 2, .* image 6"):
        MeanActivation().update(make_batch(values, (5, 6)))


def test_random_scores_depend_on_the_seed_alone(make_batch: Batch) -> None:
    def scores(seed: int, values: np.ndarray) -> xr.DataArray:
        metric = RandomScore(seed)
        metric.update(make_batch(values, range(len(values))))
        return metric.compute().drop_attrs()

    assert scores(1, activations(2)).identical(scores(1, activations(7)))
    assert not scores(1, activations(2)).identical(scores(2, activations(2)))


@METRICS
def test_merging_equals_one_run(make_batch: Batch, metric: type[Metric]) -> None:
    values = np.round(activations(6) * 8)  # whole numbers: sums are exact
    whole, first, second = metric(), metric(), metric()
    whole.update(make_batch(values, range(6)))
    first.update(make_batch(values[:2], range(2)))
    second.update(make_batch(values[2:], range(2, 6)))
    second.merge(first.state())
    second.merge(metric().state())
    assert second.compute().identical(whole.compute())


@METRICS
def test_no_image_is_an_error(metric: type[Metric]) -> None:
    with pytest.raises(InputError, match="has seen no image"):
        metric().compute()
