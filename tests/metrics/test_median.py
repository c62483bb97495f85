"""UnitMem against the median of the other images: numbers worked by hand, and the same laws."""

from __future__ import annotations

import statistics
from inspect import unwrap

import numpy as np
import pytest
import xarray as xr

from iarmem_metrics.unitmem import UnitMem
from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Metric
from iarmem_plugin.plugins.create import create
from iarmem_plugin.testing import MetricTests


class Median(UnitMem):
    """UnitMem that compares with the median."""

    name = "median"

    def __init__(self) -> None:
        super().__init__(reference="median")


class TestMedian(MetricTests):
    """In any order, merged or not, block by block, and left alone: the laws of every metric."""

    @pytest.fixture
    def metric(self) -> type[Metric]:
        return Median


def batch(scores: np.ndarray, first: int = 0) -> xr.DataArray:
    """Return scores [image, neuron] as activations of one block and scale."""
    ids = {"image": np.arange(first, first + len(scores))}
    values = np.asarray(scores, np.float32)[:, None, None]
    return xr.DataArray(values, ids, ("image", "block", "scale", "neuron")).transpose(
        "block", "scale", "neuron", "image"
    )


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ((1, 1, 3), 0.5),  # others 1, 1: (3 - 1) / (3 + 1)
        ((6, 1, 2, 3), 0.5),  # others 1, 2, 3: (6 - 2) / (6 + 2)
        ((0, 0, 8, 2, 4), 7 / 9),  # others 0, 0, 2, 4, whose middle is 1: (8 - 1) / (8 + 1)
        ((5, 5, 5), 0.0),  # one maximum is left out, and no more
        ((5, 5, 1, 1), 2 / 3),  # others 1, 1, 5: (5 - 1) / (5 + 1)
        ((0, 0, 0, 7), 1.0),
        ((3, 1), 0.5),
    ],
)
def test_the_median_is_that_of_the_images_without_the_largest(
    scores: tuple[float, ...], expected: float
) -> None:
    metric = UnitMem(reference="median")
    metric.update(batch(np.array(scores)[:, None]))
    assert metric.compute().item() == pytest.approx(expected, abs=1e-15)


def test_the_median_is_that_of_a_second_library() -> None:
    scores = np.random.default_rng(0).random((41, 5)).astype(np.float32)
    metric = UnitMem(reference="median")
    for first in range(0, 41, 7):
        metric.update(batch(scores[first : first + 7], first))
    for neuron, values in enumerate(scores.T.astype(np.float64).tolist()):
        highest = max(values)
        values.remove(highest)
        rest = statistics.median(values)
        expected = (highest - rest) / (highest + rest)
        assert metric.compute().to_numpy().ravel()[neuron] == pytest.approx(expected, abs=1e-12)


def test_a_state_that_was_stored_goes_on() -> None:
    scores = np.random.default_rng(1).random((9, 4))
    whole, first, second = (UnitMem(reference="median") for _ in range(3))
    whole.update(batch(scores))
    first.update(batch(scores[5:], 5))
    second.merge(first.state())
    second.update(batch(scores[:5]))
    xr.testing.assert_identical(second.compute(), whole.compute())
    assert second.state()["values"].sizes["image"] == 9


def test_the_mean_keeps_no_image() -> None:
    metric = UnitMem()
    metric.update(batch(np.ones((3, 2))))
    assert "values" not in metric.state()
    assert (metric.keeps_images, UnitMem(reference="median").keeps_images) == (False, True)
    assert (metric.key, UnitMem(reference="median").key) == ("unitmem", "unitmem(reference=median)")


def test_another_reference_is_refused() -> None:
    with pytest.raises(InputError, match="'mode' was given; expected mean or median"):
        unwrap(UnitMem.__init__)(UnitMem(), reference="mode")  # without the gate's type checks
    with pytest.raises(InputError, match="reference=mode; expected mean or median; it has: dtype"):
        create("metric", "unitmem:reference=mode")


def test_a_single_image_has_no_others() -> None:
    metric = UnitMem(reference="median")
    metric.update(batch(np.ones((1, 2))))
    with pytest.warns(UserWarning, match="single image"):
        assert np.isnan(metric.compute()).all()
