"""What every metric must do."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from iarmem_plugin.interfaces import Metric

BLOCKS, SCALES, NEURONS, IMAGES = 2, 3, 5, 12


class MetricTests:
    """Subclass it and give the fixture `metric`: the class under test."""

    tolerance = 1e-6  # relative: float32 results of sums in another order

    @pytest.fixture
    def metric(self) -> type[Metric]:
        """Return the class under test."""
        raise NotImplementedError("give the fixture `metric`")

    @pytest.fixture
    def activations(self) -> xr.DataArray:
        """Return activations as `capture` yields them, all distinct and not negative."""
        size = BLOCKS * SCALES * NEURONS * IMAGES
        values = np.random.default_rng(0).permutation(size).astype("float32") / size
        return xr.DataArray(
            values.reshape(IMAGES, BLOCKS, SCALES, NEURONS),
            dims=("image", "block", "scale", "neuron"),
            coords={
                "block": np.arange(BLOCKS),
                "scale": np.arange(SCALES),
                "scale_name": ("scale", np.array([str(k) for k in range(SCALES)], object)),
                "neuron": np.arange(NEURONS, dtype="int32"),
                "image": np.arange(100, 100 + IMAGES),
                "label": ("image", (np.arange(IMAGES) % 3).astype("int32")),
            },
            name="activation",
        ).transpose("block", "scale", "neuron", "image")

    def test_it_has_a_name(self, metric: type[Metric]) -> None:
        """Users choose it by name."""
        assert isinstance(metric.name, str)
        assert metric.name

    def test_it_scores_every_neuron_at_every_scale(
        self, metric: type[Metric], activations: xr.DataArray
    ) -> None:
        """Dims (block, scale, neuron), the same coordinates, and which scores are valid."""
        scores = run(metric, activations)
        assert dict(scores.sizes) == {"block": BLOCKS, "scale": SCALES, "neuron": NEURONS}
        assert scores.coords["valid"].dtype == bool
        assert scores.coords["valid"].dims == scores.dims
        for dim in scores.dims:
            np.testing.assert_array_equal(scores.coords[dim], activations.coords[dim])

    @pytest.mark.parametrize("size", [1, 5, IMAGES])
    def test_batching_does_not_matter(
        self, metric: type[Metric], activations: xr.DataArray, size: int
    ) -> None:
        """Images may come in batches of any size."""
        starts = range(0, IMAGES, size)
        batches = [activations.isel(image=slice(start, start + size)) for start in starts]
        self.assert_same(run(metric, *batches), run(metric, activations))

    def test_the_order_of_images_does_not_matter(
        self, metric: type[Metric], activations: xr.DataArray
    ) -> None:
        """Images may come in any order."""
        turned = activations.isel(image=slice(None, None, -1))
        self.assert_same(run(metric, turned), run(metric, activations))

    @pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
    def test_states_merge_in_any_order(
        self, metric: type[Metric], activations: xr.DataArray, order: tuple[int, ...]
    ) -> None:
        """Processes that saw other images merge into what one would have computed."""
        whole = metric()
        for part in order:
            one = metric()
            one.update(activations.isel(image=slice(part * 4, part * 4 + 4)))
            whole.merge(one.state())
        self.assert_same(whole.compute(), run(metric, activations))

    def test_blocks_may_be_scored_one_by_one(
        self, metric: type[Metric], activations: xr.DataArray
    ) -> None:
        """What says that it is blockwise gives each block the same scores on its own."""
        blocks = range(BLOCKS if metric.blockwise else 0)
        for block in blocks:
            alone = run(metric, activations.isel(block=[block]))
            self.assert_same(alone, run(metric, activations).isel(block=[block]))

    def test_its_state_holds_no_objects(
        self, metric: type[Metric], activations: xr.DataArray
    ) -> None:
        """Numbers, booleans and strings alone, so that a state can be stored without pickle."""
        one = metric()
        one.update(activations)
        names = {str(name) for name, array in one.state().data_vars.items() if array.dtype == "O"}
        assert names == set()

    def test_the_batch_is_left_as_it_was(
        self, metric: type[Metric], activations: xr.DataArray
    ) -> None:
        """Another metric may read the same batch."""
        before = activations.copy(deep=True)
        run(metric, activations)
        xr.testing.assert_identical(activations, before)

    def assert_same(self, scores: xr.DataArray, expected: xr.DataArray) -> None:
        """Compare scores up to the tolerance, and their validity exactly."""
        np.testing.assert_allclose(scores, expected, rtol=self.tolerance, atol=self.tolerance)
        np.testing.assert_array_equal(scores.coords["valid"], expected.coords["valid"])


def run(metric: type[Metric], *batches: xr.DataArray) -> xr.DataArray:
    """Score batches of images with a fresh instance."""
    one = metric()
    for batch in batches:
        one.update(batch)
    return one.compute()
